"""The claims about tickets that are shallower."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from tombola.claims.claim import Claim, ClaimArm, Level, Protocol
from tombola.claims.first import BENCH, CIFAR, FULL, trained
from tombola.claims.outcome import Expectation
from tombola.methods import Method, method, removing

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


def layer_method(name: str, count: int) -> Method:
    return removing(method(f"layer-{name}"), count)


def arms_for(names: Iterable[str], counts: Iterable[int]) -> dict[str, ClaimArm]:
    return {f"{name}, {count}": ClaimArm(layer_method(name, count)) for name in names for count in counts}


def protocols(arms: Mapping[str, ClaimArm], minutes: str) -> dict[Level, Protocol]:
    return {
        "quick": Protocol(replace(trained(BENCH, 1), model="resnet20"), _smallest(arms), 2, "2"),
        "standard": Protocol(RESNET, arms, 5, minutes),
        "full": Protocol(replace(CIFAR, model="resnet32"), arms, 5, FULL),
    }


def _smallest(arms: Mapping[str, ClaimArm]) -> dict[str, ClaimArm]:
    """The dense network and the arms that remove one block, as many as the quick network has to spare."""
    return {name: arm for name, arm in arms.items() if name == "dense" or name.endswith(", 1")}


TICKETS = Claim(
    id="layer-tickets",
    title="Tickets of fewer layers, found at initialisation, are within a point of the dense network",
    statement=(
        "Removing one to five residual blocks from an untrained ResNet-32 in one shot, by SNIP or by GraSP, and "
        "training what is left from the same initialisation gives an accuracy within a point of the dense network's."
    ),
    source=f"{LAYERS}, table 2",
    differs=DIFFERS,
    protocols=protocols({"dense": ClaimArm(None)} | arms_for(CRITERIA, COUNTS), "50"),
    expected=tuple(Expectation(f"{name}, {count}", "≥", "dense", margin=0.01) for name in CRITERIA for count in COUNTS),
)

CRITERION = Claim(
    id="layer-criterion",
    title="Which layers go is worth choosing",
    statement=(
        "Tickets of fewer layers chosen by SNIP or GraSP are better than those from which random blocks, or simply the "
        "first ones, were removed. (The paper takes this for granted and does not test it.)"
    ),
    source=f"{LAYERS}, algorithm 2",
    differs=DIFFERS,
    protocols=protocols(arms_for((*CRITERIA, *BASELINES), COMPARED), "60"),
    expected=tuple(
        Expectation(f"{name}, {count}", ">", f"{other}, {count}")
        for count in COMPARED
        for name in CRITERIA
        for other in BASELINES
    ),
)

SHALLOWER = (TICKETS, CRITERION)
