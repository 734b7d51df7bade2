"""The claim about greedy forward selection of channels: how much pre-training a good ticket needs."""

from __future__ import annotations

from tombola.claims.claim import Claim, ClaimArm, Level, Protocol
from tombola.claims.first import BENCH, CIFAR, FULL, trained
from tombola.claims.outcome import Expectation
from tombola.methods import GreedyChannels
from tombola.studies import TaskOptions


def stopped_arms(points: dict[str, str | None], recipe: int, fine_tune: int, candidates: int) -> dict[str, ClaimArm]:
    """Tickets of half of the channels from dense networks stopped at some points, and dense networks of two lengths."""
    arms = {
        f"dense, {recipe} epochs": ClaimArm(None),
        f"dense, {recipe + fine_tune} epochs": ClaimArm(None, extra_epochs=fine_tune),
    }
    for name, point in points.items():
        drawn = GreedyChannels(
            repeat=False, candidates=candidates, samples=64, pretrain=point, fine_tune=fine_tune, density=0.5
        )
        arms[name] = ClaimArm(drawn)
    return arms


def protocol(
    task: TaskOptions, points: dict[str, str | None], fine_tune: int, candidates: int, seeds: int, minutes: str
) -> Protocol:
    return Protocol(task, stopped_arms(points, task.recipe.epochs, fine_tune, candidates), seeds, minutes)


PROTOCOLS: dict[Level, Protocol] = {
    "quick": protocol(trained(BENCH, 2), {"after 1 epoch": "1ep", "after all": None}, 1, 2, 2, "3"),
    "standard": protocol(
        trained(BENCH, 4), {"after 1 epoch": "1ep", "after 2 epochs": "2ep", "after all": None}, 2, 8, 3, "25"
    ),
    "full": protocol(
        CIFAR,
        {**{f"after {point} epochs": f"{point}ep" for point in (10, 20, 40, 80)}, "after all": None},
        80,
        50,
        5,
        FULL,
    ),
}

PRETRAINING = Claim(
    id="greedy-pretraining",
    title="A network that is not fully trained gives as good a ticket by greedy forward selection",
    statement=(
        "Subnetworks that greedy forward selection draws from a dense network whose training was stopped early are "
        "fine-tuned to the accuracy of those drawn from the fully trained network, and to that of the fully trained "
        "network itself."
    ),
    source=(
        "Wolfe, Liao, Wang, Kim, Kyrillidis, How much pre-training is enough to discover a good subnetwork?, TMLR "
        "2024, as its abstract has it"
    ),
    differs=(
        "Fashion-MNIST at 14×14 with 20,000 images and ResNet-20 for CIFAR-10 and ImageNet with ResNet34 and "
        "MobileNetV2; training stopped after 1, 2 or all 4 epochs of one cosine schedule, and 2 epochs of fine-tuning "
        "through a schedule of its own, for every ticket. Half of the channels of each layer, each picked once from 8 "
        "random candidates by the loss on 64 new images, without tuning between the layers. The ticket drawn after 2 "
        "epochs has had as many in all as the dense network of 4, the one drawn after all 4 as that of 6."
    ),
    protocols=PROTOCOLS,
    expected=(
        Expectation("after 1 epoch", "≥", "after all"),
        Expectation("after 2 epochs", "≥", "after all"),
        Expectation("after 2 epochs", "≥", "dense, 4 epochs"),
        Expectation("after all", "≥", "dense, 6 epochs"),
    ),
)
