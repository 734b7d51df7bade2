"""The claims about tickets drawn while masks settle, and what of a run they measure: Early-Bird."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tombola.methods import EarlyBird
from tombola.papers.claims.claim import Claim, ClaimArm, Level, Protocol
from tombola.papers.claims.first import BENCH, CIFAR, FULL, trained
from tombola.papers.claims.outcome import Expectation, Unit
from tombola.studies import Result, TaskOptions

EPOCHS = Unit("epochs", "epochs", 1, 0.5)
TERAFLOPS = Unit("TFLOPs", "TFLOPs", 1e-12, 1e11)
RECOVERED = 0.87
"""The validation accuracy of 'epochs to recover', as the paper's 90 %; dense networks end at 89 to 91 % here."""

RESNET = trained(BENCH, 16)
VGG = replace(trained(BENCH, 30), model="vgg11", width=0.25)

EARLY_BIRD = "You et al., Drawing Early-Bird Tickets, ICLR 2020"

IMAGES = "Fashion-MNIST at 14×14 with 20,000 images for CIFAR; the test split for accuracies, once, at the end"


def ticket_epoch(result: Result) -> float:
    """Epochs of training before the ticket was drawn."""
    return result.epochs_spent


def quarter(result: Result) -> float:
    """A quarter of the schedule that a ticket goes on with."""
    return result.epochs / 4


def lost(result: Result) -> float:
    """Validation accuracy that removing the channels costs, before any retraining."""
    assert result.whole is not None
    assert result.before is not None
    return result.whole - result.before


def flops(result: Result) -> float:
    """Searching and training together."""
    return result.search["flops"] + result.training["flops"]


def epochs_to_recover(result: Result) -> float:
    """Epochs of the ticket's training until `RECOVERED` on the validation split; one more than it had if never."""
    return _epochs_to(RECOVERED, result)


def epochs_to_regain(result: Result) -> float:
    """The same until what the whole network had when the ticket was drawn, less half a point."""
    assert result.whole is not None
    return _epochs_to(result.whole - 0.005, result)


def _epochs_to(accuracy: float, result: Result) -> float:
    reached = [row["validation_metric"] >= accuracy for row in result.history]
    return 1.0 + (reached.index(True) if any(reached) else len(reached))


MEASURES: Mapping[str, tuple[Callable[[Result], float], Unit | None]] = {
    "ticket epoch": (ticket_epoch, EPOCHS),
    "total work": (flops, TERAFLOPS),
    "lost in pruning": (lost, None),
    "epochs to recover": (epochs_to_recover, EPOCHS),
    "epochs to regain": (epochs_to_regain, EPOCHS),
}
COMPARED = ("ticket epoch", "total work", "lost in pruning")
"""Work stands for time: arms that share runs are hours apart on a machine with other work; what truncating itself costs
is in the benchmarks."""


def measured(method: EarlyBird, name: str) -> ClaimArm:
    of, unit = MEASURES[name]
    return ClaimArm(method, measured=of) if unit is None else ClaimArm(method, measured=of, unit=unit)


def settling_arms() -> dict[str, ClaimArm]:
    arms: dict[str, ClaimArm] = {"dense": ClaimArm(None)}
    for density in (0.7, 0.5):
        drawn = EarlyBird(density)
        arms |= {
            f"early-bird {density:.0%}": ClaimArm(drawn),
            f"ticket epoch {density:.0%}": measured(drawn, "ticket epoch"),
            f"a quarter of training {density:.0%}": ClaimArm(drawn, measured=quarter, unit=EPOCHS),
        }
    return arms | {"re-initialised 50%": ClaimArm(EarlyBird(0.5, weights="fresh"))}


SETTLING_EXPECTED = (
    *(Expectation(f"a quarter of training {d}", "≥", f"ticket epoch {d}") for d in ("70%", "50%")),
    *(Expectation(f"early-bird {d}", "≥", "dense", margin=0.01) for d in ("70%", "50%")),
    Expectation("early-bird 50%", ">", "re-initialised 50%"),
)


def protocols(
    task: TaskOptions, arms: Callable[[], dict[str, ClaimArm]], seeds: int, minutes: str
) -> dict[Level, Protocol]:
    own = arms()
    return {
        "quick": Protocol(trained(task, 5), own, 2, "3"),
        "standard": Protocol(task, own, seeds, minutes),
        "full": Protocol(replace(CIFAR, model=task.model), own, 7, FULL),
    }


SETTLES = (
    "The channels that a pruning by batch-norm scale would keep settle (distance below 0.1) within the first quarter "
    "of training; tickets of 70 and 50 % of the channels drawn there, which go on training with the weights that they "
    "have, end within a point of the dense network, and above the same tickets with new weights."
)

SETTLING = tuple(
    Claim(
        id=id,
        title=f"Early-Bird tickets settle early and retrain to the dense accuracy ({where})",
        statement=SETTLES,
        source=f"{EARLY_BIRD}, figures 2 and 3, table 2",
        differs=f"{IMAGES}. {epochs} for 160; a cosine schedule for two steps; no L1 penalty. {note}".strip(),
        protocols=protocols(task, settling_arms, seeds, minutes),
        expected=SETTLING_EXPECTED,
    )
    for id, where, task, epochs, seeds, minutes, note in (
        (
            "early-bird",
            "ResNet-20",
            RESNET,
            "16 epochs",
            7,
            "60",
            "The window of five masks is first full at the fourth epoch, which is the quarter.",
        ),
        ("early-bird-vgg11", "VGG-11", VGG, "30 epochs", 3, "15", "A quarter of VGG-11's width."),
    )
)
