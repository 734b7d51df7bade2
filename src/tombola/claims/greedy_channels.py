"""The claims about greedy forward selection of channels: how much pre-training a good ticket needs."""

from __future__ import annotations

from dataclasses import replace

from tombola.claims.claim import Claim, ClaimArm, Level, Protocol
from tombola.claims.early_bird import VGG
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


ABSTRACT = (
    "Wolfe, Liao, Wang, Kim, Kyrillidis, How much pre-training is enough to discover a good subnetwork?, TMLR 2024, as "
    "its abstract has it"
)


def points_of(*epochs: int) -> dict[str, str | None]:
    """Where training stops, by what the arm is called; last of all at the recipe's end."""
    named: dict[str, str | None] = {f"after {own} epoch{'s' if own > 1 else ''}": f"{own}ep" for own in epochs}
    return {**named, "after all": None}


def protocols(task: TaskOptions, points: dict[str, str | None], fine_tune: int, minutes: str) -> dict[Level, Protocol]:
    paper = replace(CIFAR, model=task.model)
    return {
        "quick": protocol(trained(task, 2), points_of(1), 1, 2, 2, "3"),
        "standard": protocol(task, points, fine_tune, 8, 3, minutes),
        "full": protocol(paper, points_of(10, 20, 40, 80), 80, 50, 5, FULL),
    }


PRETRAINING = tuple(
    Claim(
        id=id,
        title=f"A network that is not fully trained gives as good a ticket by greedy forward selection ({where})",
        statement=(
            "Subnetworks that greedy forward selection draws from a dense network whose training was stopped early are "
            "fine-tuned to the accuracy of those drawn from the fully trained network, and to that of the fully "
            "trained network itself."
        ),
        source=ABSTRACT,
        differs=(
            f"Fashion-MNIST at 14×14 with 20,000 images and {where} for CIFAR-10 and ImageNet with ResNet34 and "
            f"MobileNetV2; training stopped within one cosine schedule of {epochs} epochs, and {fine_tune} epochs of "
            "fine-tuning through a schedule of its own, for every ticket. Half of the channels of each layer, each "
            "picked once from 8 random candidates by the loss on 64 new images, without tuning between the layers. "
            f"The ticket drawn after {epochs - fine_tune} epochs has had as many in all as the dense network of "
            f"{epochs}, the one drawn after all {epochs} as that of {epochs + fine_tune}."
        ),
        protocols=protocols(task, points_of(*early), fine_tune, minutes),
        expected=(
            *(Expectation(name, "≥", "after all") for name in points_of(*early) if name != "after all"),
            Expectation(f"after {epochs - fine_tune} epochs", "≥", f"dense, {epochs} epochs"),
            Expectation("after all", "≥", f"dense, {epochs + fine_tune} epochs"),
        ),
    )
    for id, where, task, epochs, early, fine_tune, minutes in (
        ("greedy-pretraining", "ResNet-20", trained(BENCH, 4), 4, (1, 2), 2, "25"),
        ("greedy-pretraining-vgg11", "VGG-11 of a quarter's width", trained(VGG, 8), 8, (1, 2, 4), 4, "15"),
    )
)
