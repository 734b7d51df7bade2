"""The claims of the lottery ticket papers that everything else stands on."""

from __future__ import annotations

from dataclasses import replace

from tombola.methods import Iterative, method
from tombola.papers.claims.claim import Claim, ClaimArm, Protocol
from tombola.papers.claims.outcome import Expectation
from tombola.studies import TaskOptions
from tombola.training import Recipe

LENET = TaskOptions(
    data="fashion-mnist",
    model="lenet-300-100",
    recipe=Recipe(epochs=8, optimizer="adam", lr=1.2e-3, weight_decay=0.0, schedule="constant"),
)
BENCH = TaskOptions(data="fashion-mnist-14", model="resnet20", recipe=Recipe(epochs=10))
CIFAR = TaskOptions(
    data="cifar10",
    model="resnet20",
    recipe=Recipe(epochs=160, schedule="multistep", augment=("crop", "flip")),
)
AT_INIT = ("snip", "grasp", "synflow")
FULL = "weeks; a day on a GPU"


def trained(task: TaskOptions, epochs: int) -> TaskOptions:
    """The same task, trained for so many epochs."""
    return replace(task, recipe=replace(task.recipe, epochs=epochs))


def lottery_arms(*densities: float) -> dict[str, ClaimArm]:
    arms = {"dense": ClaimArm(None)}
    for density in densities:
        imp = method("imp", density=density)
        arms[f"imp {density:.1%}"] = ClaimArm(imp)
        arms |= {f"{name} {density:.1%}": ClaimArm(imp, name) for name in ("fresh-init", "random")}
    return arms


LOTTERY_DENSITIES = (0.2, 0.05, 0.014)

LOTTERY = Claim(
    id="lottery-ticket",
    title="IMP tickets beat their own re-initialisation and a random mask",
    statement=(
        "A subnetwork found by iterative magnitude pruning and rewound to its initialisation trains to a higher "
        "accuracy than the same subnetwork initialised anew, and than a random one of the same layer counts."
    ),
    source="Frankle & Carbin, The Lottery Ticket Hypothesis, ICLR 2019, sections 1 and 2 (LeNet-300-100)",
    differs=(
        "Fashion-MNIST for MNIST, which cannot be had here; batches of 128 for 60; 8 epochs (3,376 steps) a round "
        "for 50,000 steps; accuracy at the end of training, not at the step of least validation loss."
    ),
    protocols={
        "quick": Protocol(trained(LENET, 1), lottery_arms(0.05), 2, "1"),
        "standard": Protocol(LENET, lottery_arms(*LOTTERY_DENSITIES), 5, "31"),
        "full": Protocol(
            replace(LENET, recipe=replace(LENET.recipe, batch=60, epochs=56)),
            lottery_arms(*LOTTERY_DENSITIES),
            5,
            FULL,
        ),
    },
    expected=tuple(
        Expectation(f"imp {density:.1%}", ">", f"{control} {density:.1%}")
        for density in LOTTERY_DENSITIES
        for control in ("fresh-init", "random")
    ),
)


def missing_the_mark_arms(density: float) -> dict[str, ClaimArm]:
    arms = {"dense": ClaimArm(None), "smart-ratio": ClaimArm(method("smart-ratio", density=density))}
    for name in AT_INIT:
        own = method(name, density=density)
        arms |= {
            name: ClaimArm(own),
            f"{name} shuffled": ClaimArm(own, "shuffle"),
            f"{name} fresh-init": ClaimArm(own, "fresh-init"),
        }
    return arms


MISSING_THE_MARK = Claim(
    id="missing-the-mark",
    title="Shuffling or re-initialising SNIP, GraSP and SynFlow tickets costs nothing, and smart ratios do as well",
    statement=(
        "For methods that prune at initialisation, shuffling the mask within each layer or drawing the "
        "initialisation anew keeps or improves accuracy; random masks with smart layer ratios do as well as they."
    ),
    source=(
        "Frankle, Dziugaite, Roy, Carbin, Pruning Neural Networks at Initialization: Why Are We Missing the Mark?, "
        "ICLR 2021; Su et al., Sanity-Checking Pruning Methods: Random Tickets can Win the Jackpot, NeurIPS 2020"
    ),
    differs=(
        "Fashion-MNIST at 14×14 with 20,000 images for CIFAR-10; 10 epochs for 160, so that 55 runs fit; "
        "density 5 % alone."
    ),
    protocols={
        "quick": Protocol(trained(BENCH, 1), missing_the_mark_arms(0.05), 2, "3"),
        "standard": Protocol(BENCH, missing_the_mark_arms(0.05), 5, "45"),
        "full": Protocol(CIFAR, missing_the_mark_arms(0.05), 5, FULL),
    },
    expected=tuple(
        Expectation(left, "≥", name)
        for name in AT_INIT
        for left in (f"{name} shuffled", f"{name} fresh-init", "smart-ratio")
    ),
)


def rewinding_arms(density: float, share: float, step: str) -> dict[str, ClaimArm]:
    rewinds = {"rewind to init": "init", "rewind to step": step, "learning-rate rewinding": "learning-rate"}
    return {name: ClaimArm(Iterative(density=density, share=share, rewind=rewind)) for name, rewind in rewinds.items()}


REWINDING = Claim(
    id="rewinding",
    title="Learning-rate rewinding ≥ rewinding to a step ≥ rewinding to init",
    statement=(
        "In iterative magnitude pruning of a residual network, keeping the trained weights and rewinding only the "
        "learning rate does at least as well as rewinding the weights to an early step, which does at least as well "
        "as rewinding them to the initialisation."
    ),
    source=(
        "Renda, Frankle, Carbin, Comparing Rewinding and Fine-tuning in Neural Network Pruning, ICLR 2020; "
        "Frankle, Dziugaite, Roy, Carbin, Linear Mode Connectivity and the Lottery Ticket Hypothesis, ICML 2020"
    ),
    differs=(
        "Fashion-MNIST at 14×14 with 20,000 images for CIFAR-10; 10 epochs a round for 182, rewinding to the end of "
        "the first; two rounds of a removed share of 78 % to density 5 % for 20 % a round."
    ),
    protocols={
        "quick": Protocol(trained(BENCH, 1), rewinding_arms(0.05, 0.95, "40it"), 2, "2"),
        "standard": Protocol(BENCH, rewinding_arms(0.05, 0.78, "1ep"), 5, "40"),
        "full": Protocol(CIFAR, rewinding_arms(0.05, 0.2, "8000it"), 5, FULL),
    },
    expected=(
        Expectation("learning-rate rewinding", "≥", "rewind to step"),
        Expectation("rewind to step", "≥", "rewind to init"),
    ),
)

FIRST = (LOTTERY, MISSING_THE_MARK, REWINDING)
