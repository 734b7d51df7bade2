"""What an arm of a claim measures of a run, by the names that the claims' files use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from tombola.errors import unknown
from tombola.papers.claims.claim import after_training
from tombola.papers.claims.units import FRACTION, GAIN, POINTS, Unit
from tombola.studies import Result

Measure = Callable[[Result], float]

EPOCHS = Unit("epochs", "epochs", 1, 0.5, step=1, ends=(0.0, math.inf))
TERAFLOPS = Unit("TFLOPs", "TFLOPs", 1e-12, 1e11)
LAYERS = Unit("layers", "layers", 1, 0.5, step=1, ends=(0.0, math.inf))
RUNS = Unit("points of runs", "%", 100, 0.05, runs=1, ends=FRACTION)
SHARE = Unit("points of training", "%", 100, 0.05, ends=FRACTION)
RATIO = Unit("of ln(ratio)", "", 1, 0.05)
SECONDS = Unit("seconds", "s", 1, 0.5)
MEGABYTES = Unit("MB", "MB", 1e-6, 1e6)
CARBON = Unit("mg CO₂e", "mg", 1e6, 1e-8)

RECOVERED = 0.87
"""The validation accuracy that 'epochs to recover' waits for. WORM has 90 %; dense networks end at 89 to 91 % here."""

ROBUST = 0.55
"""The robust accuracy that 'epochs to robust' waits for. LeNet-5 nearly has it after two epochs under PGD."""

ROBUSTNESS = (
    "clean",
    "FGSM 1/255",
    "FGSM 4/255",
    "PGD 4/255",
    "corruptions",
    "held-out, energy AUROC",
    "held-out, MSP AUROC",
    "digits, energy AUROC",
    "calibration error",
)


def before_training(result: Result) -> float:
    """The metric of a ticket on the validation split, as its search left it."""
    assert result.before is not None
    return result.before


def chance_level(result: Result) -> float:
    """Guessing among ten classes."""
    return 0.1


def kept(result: Result, of: str = "") -> float:
    """The share of weights that a ticket keeps in the layers whose names begin with `of`; by default in all layers."""
    counts = [count for name, count in result.layers.items() if name.startswith(of)]
    return sum(kept for kept, _ in counts) / sum(size for _, size in counts)


def collapsed(result: Result) -> float:
    """How many layers have no weight left."""
    return float(sum(name.endswith("weight") for name in result.collapsed))


def on_a_path(result: Result) -> float:
    """The share of a ticket's weights that lie on a path from the inputs to the outputs."""
    assert result.effective_density is not None
    return result.effective_density / result.weight_density


def trains(result: Result, at: float = 0.5) -> float:
    """Whether the network learnt anything: 1 if its test accuracy is above `at`, else 0."""
    return float(result.metric > at)


def share_of_training(result: Result) -> float:
    """Which share of the whole schedule had passed when the ticket was drawn."""
    return result.epochs_spent / result.epochs


def fixed(result: Result, at: float) -> float:
    """A number to compare with."""
    return at


def robust_share(result: Result, by: str) -> float:
    """How much of its clean accuracy a network keeps on changed images."""
    return result.robustness[by] / result.robustness["clean"]


def logarithm(result: Result, of: str) -> float:
    """The logarithm of an entry of the training's cost ledger, so that a difference is that of a ratio."""
    return math.log(result.training[of])


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
    """FLOPs of search and training together.

    They stand for time, because runs that arms share are hours apart on a machine that does other work. The benchmarks
    have the cost of truncating itself.
    """
    return result.search["flops"] + result.training["flops"]


def epochs_to_recover(result: Result) -> float:
    """Epochs until the ticket's validation accuracy reaches `RECOVERED`; if it never does, one more than it trained."""
    return _epochs_to(RECOVERED, result)


def epochs_to_regain(result: Result) -> float:
    """Epochs until the accuracy is half a point below the whole network's when the ticket was drawn, or better."""
    assert result.whole is not None
    return _epochs_to(result.whole - 0.005, result)


def _epochs_to(accuracy: float, result: Result, of: str = "validation_metric") -> float:
    reached = [row[of] >= accuracy for row in result.history]
    return 1.0 + (reached.index(True) if any(reached) else len(reached))


def robust(result: Result, at: float = 1.0) -> float:
    """Accuracy on attacked validation images after this share of the epochs."""
    return result.history[max(round(at * len(result.history)), 1) - 1]["robust_pgd"]


def epochs_to_robust(result: Result) -> float:
    """Epochs until accuracy on attacked validation images reaches `ROBUST`; if it never does, one more than trained."""
    return _epochs_to(ROBUST, result, "robust_pgd")


def robustness_of(result: Result, by: str) -> float:
    """One measure of the robustness of a run's network."""
    return result.robustness[by]


def spent(result: Result, key: str, share: float = 1.0) -> float:
    """An entry of the training's cost ledger, times a share."""
    return share * result.training[key]


MEASURES: Mapping[str, tuple[Callable[..., float], Unit]] = {
    "accuracy": (after_training, POINTS),
    "accuracy before training": (before_training, POINTS),
    "chance": (chance_level, POINTS),
    "kept": (kept, POINTS),
    "dead layers": (collapsed, LAYERS),
    "layers, as many as": (fixed, LAYERS),
    "on a path": (on_a_path, POINTS),
    "trains": (trains, RUNS),
    "share of training": (share_of_training, SHARE),
    "share of training, at most": (fixed, SHARE),
    "kept on corruptions": (partial(robust_share, by="corruptions"), POINTS),
    "ln seconds": (partial(logarithm, of="seconds"), RATIO),
    "ln memory of a step": (partial(logarithm, of="step_memory"), RATIO),
    "ticket epoch": (ticket_epoch, EPOCHS),
    "a quarter of training": (quarter, EPOCHS),
    "total work": (flops, TERAFLOPS),
    "lost in pruning": (lost, GAIN),
    "epochs to recover": (epochs_to_recover, EPOCHS),
    "epochs to regain": (epochs_to_regain, EPOCHS),
    "robust": (robust, POINTS),
    "robust early": (partial(robust, at=0.2), POINTS),
    "epochs to robust": (epochs_to_robust, EPOCHS),
    "seconds": (partial(spent, key="seconds"), SECONDS),
    "memory of a step": (partial(spent, key="step_memory"), MEGABYTES),
    "carbon": (partial(spent, key="carbon"), CARBON),
    **{name: (partial(robustness_of, by=name), POINTS) for name in ROBUSTNESS},
}


def measure_of(entry: str | Mapping[str, object]) -> tuple[Measure, Unit]:
    """Find a measure and its unit.

    Args:
        entry: the measure's name, or a table of name and settings, as `{ measure = "kept", of = "fc." }`.

    Raises:
        TombolaError: if there is no measure of that name.

    Examples:
        >>> measure_of("ticket epoch")[1].name
        'epochs'
    """
    settings = {"measure": entry} if isinstance(entry, str) else dict(entry)
    name = str(settings.pop("measure"))
    if name not in MEASURES:
        raise unknown("measure", name, MEASURES)
    function, unit = MEASURES[name]
    return (partial(function, **settings) if settings else function), unit
