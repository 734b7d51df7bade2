"""The claims about tickets that are shallower."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from tombola.evidence import Robustness
from tombola.methods import Method, method, removing
from tombola.papers.claims.claim import Claim, ClaimArm, Level, Protocol
from tombola.papers.claims.first import BENCH, CIFAR, FULL, trained
from tombola.papers.claims.outcome import Expectation, Unit
from tombola.studies import Result

LAYERS = "Jordao et al., When Layers Play the Lottery, all Tickets Win at Initialization, 2023"
RESNET = replace(trained(BENCH, 5), model="resnet32")
DIFFERS = (
    "Fashion-MNIST at 14×14 with 20,000 images for CIFAR-10; 5 epochs for (by the group's usual recipe) 200; five "
    "seeds with intervals for single runs. What the paper leaves open: one batch of 128, the sum over a block."
)
CRITERIA = ("snip", "grasp")
BASELINES = ("random", "front-to-back")
COUNTS = (1, 2, 3, 4, 5)
COMPARED = (1, 3, 5)
CONTRASTED = (1, 5)
MANY = 5


def layer_method(name: str, count: int) -> Method:
    return removing(method(f"layer-{name}"), count)


def arms_for(names: Iterable[str], counts: Iterable[int]) -> dict[str, ClaimArm]:
    return {f"{name}, {count}": ClaimArm(layer_method(name, count)) for name in names for count in counts}


def protocols(arms: Mapping[str, ClaimArm], minutes: str) -> dict[Level, Protocol]:
    return {
        "quick": Protocol(replace(trained(RESNET, 1), width=0.5), arms, 2, "3"),
        "standard": Protocol(RESNET, arms, 5, minutes),
        "full": Protocol(replace(CIFAR, model="resnet32"), arms, 5, FULL),
    }


TICKETS = Claim(
    id="layer-tickets",
    title="Tickets of fewer layers, found at initialisation, are within a point of the dense network",
    statement=(
        "Removing one to five residual blocks from an untrained ResNet-32 in one shot, by SNIP or by GraSP, and "
        "training what is left from the same initialisation gives an accuracy within a point of the dense network's."
    ),
    source=f"{LAYERS}, table 2",
    differs=DIFFERS,
    protocols=protocols({"dense": ClaimArm(None)} | arms_for(CRITERIA, COUNTS), "40"),
    expected=tuple(Expectation(f"{name}, {count}", "≥", "dense", margin=0.01) for name in CRITERIA for count in COUNTS),
)

CRITERION = Claim(
    id="layer-criterion",
    title="Which layers go is worth choosing",
    statement=(
        "Tickets without five layers, chosen by SNIP or GraSP, are better than those from which random blocks, or "
        "simply the first ones, were removed. (The paper takes this for granted and does not test it.)"
    ),
    source=f"{LAYERS}, algorithm 2",
    differs=DIFFERS,
    protocols=protocols(arms_for((*CRITERIA, *BASELINES), (MANY,)), "15"),
    expected=tuple(Expectation(f"{name}, {MANY}", ">", f"{other}, {MANY}") for name in CRITERIA for other in BASELINES),
)


def contrast_arms() -> dict[str, ClaimArm]:
    arms: dict[str, ClaimArm] = {"dense": ClaimArm(None)}
    for count in CONTRASTED:
        for name in CRITERIA:
            arms[f"layers by {name}, {count}"] = ClaimArm(layer_method(name, count))
            arms[f"filters by {name}, {count}"] = ClaimArm(removing(method(f"filter-{name}"), count))
    return arms


FILTERS = Claim(
    id="layer-filters",
    title="Tickets of as many filters do worse at initialisation than tickets of fewer layers",
    statement=(
        "Removing as many filters as one block has from inside the blocks of an untrained ResNet-32 gives less "
        "accuracy than removing the block: by SNIP −0.79 points against dense for +0.08, by GraSP −0.11 for +0.40."
    ),
    source=f"{LAYERS}, table 3",
    differs=f"{DIFFERS} Five blocks beside one. Filters as in the group's code: the same share of every layer.",
    protocols=protocols(contrast_arms(), "30"),
    expected=tuple(
        Expectation(f"layers by {name}, {count}", ">", f"filters by {name}, {count}")
        for count in CONTRASTED
        for name in CRITERIA
    ),
)

TRIED = Robustness(epsilons=(1 / 255, 4 / 255), samples=1000)
MEASURES = ("FGSM 1/255", "FGSM 4/255", "corruptions", "held-out, energy AUROC", "digits, energy AUROC")
SHOWN = ("clean", *MEASURES, "PGD 4/255", "held-out, MSP AUROC", "calibration error")


def tried(measure: str) -> Callable[[Result], float]:
    """What a run's network came to by one measure of robustness."""
    return lambda result: result.robustness[measure]


def robust_arms() -> dict[str, ClaimArm]:
    methods: dict[str, Method | None] = {"dense": None} | {f"grasp, {n}": layer_method("grasp", n) for n in COMPARED}
    methods["random, 3"] = layer_method("random", 3)
    return {f"{name}: {what}": ClaimArm(own, measured=tried(what)) for name, own in methods.items() for what in SHOWN}


def quick_arms() -> dict[str, ClaimArm]:
    return {name: arm for name, arm in robust_arms().items() if name.startswith(("dense", "grasp, 1:"))}


HELD_OUT = replace(RESNET, hold_out=2)

ROBUST = Claim(
    id="layer-robustness",
    title="Tickets of fewer layers are no less robust than the dense network",
    statement=(
        "Tickets that GraSP finds at initialisation by removing one to five blocks are no less robust than the dense "
        "network, without being trained for it: to adversarial and to corrupted images, and in telling foreign ones. "
        "(In the paper nine of fourteen differences, on CIFAR-C and CIFAR-10.2, are gains, without intervals.)"
    ),
    source=f"{LAYERS}, tables 4 and 5",
    differs=(
        f"{DIFFERS} Six corruptions at five severities, FGSM and foreign images (two classes held out; digits) for "
        "CIFAR-C and CIFAR-10.2; 1,000 test images. Two of ten classes are held out of training."
    ),
    protocols={
        "quick": Protocol(
            replace(trained(HELD_OUT, 1), model="resnet20"),
            quick_arms(),
            2,
            "3",
            TRIED,
        ),
        "standard": Protocol(HELD_OUT, robust_arms(), 5, "35", TRIED),
        "full": Protocol(replace(CIFAR, model="resnet32", hold_out=2), robust_arms(), 5, FULL, TRIED),
    },
    expected=tuple(
        Expectation(f"grasp, {count}: {measure}", "≥", f"dense: {measure}", margin=0.01)
        for count in COMPARED
        for measure in MEASURES
    ),
)

SAVED: Mapping[str, tuple[str, Unit]] = {
    "seconds": ("seconds", Unit("seconds", "s", 1, 0.5)),
    "memory of a step": ("step_memory", Unit("MB", "MB", 1e-6, 1e6)),
    "carbon": ("carbon", Unit("mg CO₂e", "mg", 1e6, 1e-8)),
}
MOST = 0.6
"""Of dense training; the paper's network keeps 55 % of the FLOPs."""


def spent(key: str, share: float = 1.0) -> Callable[[Result], float]:
    """A share of an entry of the ledger of a run's training."""
    return lambda result: share * result.training[key]


def saving_arms(count: int) -> dict[str, ClaimArm]:
    arms: dict[str, ClaimArm] = {}
    for what, (key, unit) in SAVED.items():
        arms[f"dense: {what}"] = ClaimArm(None, measured=spent(key), unit=unit)
        arms[f"{MOST:.0%} of dense: {what}"] = ClaimArm(None, measured=spent(key, MOST), unit=unit)
        arms[f"grasp, {count}: {what}"] = ClaimArm(layer_method("grasp", count), measured=spent(key), unit=unit)
    return arms


SAVINGS = Claim(
    id="layer-savings",
    title="Without 12 of ResNet-56's blocks training takes about half the time, memory and carbon",
    statement=(
        "A ticket that GraSP finds by removing 12 of ResNet-56's 27 blocks before training saves 45 % of the FLOPs, "
        "46 % of the memory and 51 % of the carbon of training, which is 2.03 times as fast."
    ),
    source=f"{LAYERS}, table 4",
    differs=(
        "Fashion-MNIST at 14×14 with 20,000 images for CIFAR-10, one epoch a run: time alone is measured, on a quiet "
        "machine, and no accuracy. More than two fifths must be saved in each. Memory is what a step holds, counted; "
        "carbon codecarbon's estimate for the grid of Germany from the processor's rated power, so it says what the "
        "seconds say."
    ),
    protocols={
        "quick": Protocol(replace(trained(BENCH, 1), model="resnet56"), saving_arms(12), 1, "2", metered=True),
        "standard": Protocol(replace(trained(BENCH, 1), model="resnet56"), saving_arms(12), 5, "3", metered=True),
        "full": Protocol(replace(CIFAR, model="resnet56"), saving_arms(12), 5, FULL, metered=True),
    },
    expected=tuple(Expectation(f"{MOST:.0%} of dense: {what}", ">", f"grasp, 12: {what}") for what in SAVED),
)

SHALLOWER = (TICKETS, CRITERION, FILTERS, ROBUST, SAVINGS)
