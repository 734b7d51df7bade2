"""The claim about layer collapse."""

from __future__ import annotations

from dataclasses import replace

from tombola.methods import method
from tombola.papers.claims.claim import Claim, ClaimArm, Protocol
from tombola.papers.claims.first import BENCH, CIFAR, FULL, trained
from tombola.papers.claims.outcome import Expectation, Unit
from tombola.studies import Result, TaskOptions

LAYERS = Unit("layers", "layers", 1, 0.5)
DENSITY = 1e-3
METHODS = ("synflow", "snip", "magnitude-init", "random")
VGG = replace(trained(BENCH, 3), model="vgg11")


def collapsed(result: Result) -> float:
    """Weights of layers of which nothing is left."""
    return float(sum(name.endswith("weight") for name in result.collapsed))


def arms() -> dict[str, ClaimArm]:
    found: dict[str, ClaimArm] = {"dense": ClaimArm(None)}
    for name in METHODS:
        own = method(name, density=DENSITY)
        found |= {name: ClaimArm(own), f"{name}, dead layers": ClaimArm(own, measured=collapsed, unit=LAYERS)}
    return found


def protocol(task: TaskOptions, seeds: int, minutes: str) -> Protocol:
    return Protocol(task, arms(), seeds, minutes)


COLLAPSE = (
    Claim(
        id="layer-collapse",
        title="SynFlow avoids layer collapse at a thousandth of the weights, where magnitude and SNIP fall to chance",
        statement=(
            "At density 0.001 magnitude at initialisation and SNIP in one shot remove whole layers of VGG, and what is "
            "left gives chance accuracy; SynFlow in 100 rounds leaves something of every layer, and trains. (In the "
            "paper's runs of VGG-16 on CIFAR-10 SynFlow has 80.4 %, SNIP 76.3 and magnitude 10.0; on CIFAR-100 41.4, "
            "16.1 and 1.0.)"
        ),
        source="Tanaka et al., Pruning neural networks without any data, NeurIPS 2020, figures 1, 3 and 6",
        differs=(
            "VGG-11 for VGG-16, Fashion-MNIST at 14×14 with 20,000 images for CIFAR, 3 epochs for 160; accuracy at the "
            "end for the best epoch's."
        ),
        protocols={
            "quick": protocol(replace(trained(BENCH, 1), model="vgg11", width=0.25), 2, "2"),
            "standard": protocol(VGG, 3, "20"),
            "full": protocol(replace(CIFAR, model="vgg16"), 3, FULL),
        },
        expected=(
            Expectation("synflow", ">", "snip"),
            Expectation("synflow", ">", "magnitude-init"),
            Expectation("snip, dead layers", ">", "synflow, dead layers"),
            Expectation("magnitude-init, dead layers", ">", "synflow, dead layers"),
        ),
    ),
)
