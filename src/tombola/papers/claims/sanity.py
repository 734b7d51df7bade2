"""The claim that sanity checks tell tickets of trained weights from those found at initialisation."""

from __future__ import annotations

from collections.abc import Mapping

from tombola.evidence import obstacle
from tombola.methods import Iterative, Method, method
from tombola.papers.claims.claim import Claim, ClaimArm, Protocol
from tombola.papers.claims.first import BENCH, CIFAR, FULL, trained
from tombola.papers.claims.outcome import Expectation

DENSITY = 0.05
CONTROLS = {"shuffled": "shuffle", "weights shuffled": "weight-shuffle", "corrupted data": "corrupted-pixels"}
UNTRAINED = ("snip", "grasp", "synflow", "magnitude-init", "smart-ratio")
TRAINED = ("imp-warm", "lrr")


def methods(share: float, step: str) -> dict[str, Method]:
    """The methods by name; share: what iterative pruning removes a round; step: what it rewinds to."""
    iterative = {"imp-warm": step, "lrr": "learning-rate"}
    pruned = {name: Iterative(DENSITY, share=share, rewind=rewind) for name, rewind in iterative.items()}
    return pruned | {name: method(name, density=DENSITY) for name in ("gem-miner", *UNTRAINED)}


def arms(own: Mapping[str, Method]) -> dict[str, ClaimArm]:
    """Each method's tickets, and those of its controls that apply to it."""
    found: dict[str, ClaimArm] = {}
    for name, searching in own.items():
        found[name] = ClaimArm(searching)
        for what, control in CONTROLS.items():
            if not obstacle(control, searching):
                found[f"{name}, {what}"] = ClaimArm(searching, control)
    return found


STANDARD = arms(methods(0.78, "1ep"))
QUICK = arms({name: own for name, own in methods(0.95, "40it").items() if name in ("imp-warm", "snip")})

SANITY = Claim(
    id="sanity-checks",
    title="Tickets found at initialisation pass no sanity check, those from trained weights pass all",
    statement=(
        "Tickets of SNIP, GraSP, SynFlow, magnitude and smart ratios at initialisation are no better than with mask or "
        "weights shuffled within each layer, or than those found on scrambled images with random labels; those of "
        "iterative pruning from trained weights (rewound to a step, or with the learning rate rewound) are, "
        "and Gem-Miner's than with mask or weights shuffled."
    ),
    source=(
        "Su et al., Sanity-Checking Pruning Methods: Random Tickets can Win the Jackpot, NeurIPS 2020; Frankle et al., "
        "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?, ICLR 2021; for Gem-Miner Sreenivasan "
        "et al., Rare Gems, NeurIPS 2022"
    ),
    differs=(
        "Fashion-MNIST at 14×14 with 20,000 images for CIFAR-10; 3 epochs for 160, so that 87 runs fit; two rounds of "
        "a removed share of 78 % to density 5 %; trained weights are checked on corrupted data, not on half of it."
    ),
    protocols={
        "quick": Protocol(trained(BENCH, 1), QUICK, 2, "3"),
        "standard": Protocol(trained(BENCH, 3), STANDARD, 3, "45"),
        "full": Protocol(CIFAR, arms(methods(0.2, "8000it")), 5, FULL),
    },
    expected=(
        *(
            Expectation(f"{name}, {what}", "≥", name)
            for name in UNTRAINED
            for what in CONTROLS
            if f"{name}, {what}" in STANDARD
        ),
        *(Expectation(name, ">", f"{name}, {what}") for name in TRAINED for what in CONTROLS),
        *(Expectation("gem-miner", ">", f"gem-miner, {what}") for what in ("shuffled", "weights shuffled")),
    ),
)
