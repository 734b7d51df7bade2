"""The claims about greedy forward selection of channels: how much pre-training a good ticket needs."""

from __future__ import annotations

from dataclasses import replace

from tombola.methods import GreedyChannels
from tombola.papers.claims.claim import Claim, ClaimArm, Level, Protocol
from tombola.papers.claims.early_bird import VGG
from tombola.papers.claims.first import BENCH, CIFAR, FULL, trained
from tombola.papers.claims.outcome import Expectation
from tombola.studies import TaskOptions

ABSTRACT = (
    "Wolfe, Liao, Wang, Kim, Kyrillidis, How much pre-training is enough to discover a good subnetwork?, TMLR 2024, as "
    "its abstract has it"
)


def stopped(task: TaskOptions, parts: tuple[int, ...], seeds: int, minutes: str, candidates: int = 8) -> Protocol:
    """Tickets from dense networks stopped after these parts of the recipe, or after all, and two dense networks.

    Every ticket is fine-tuned for half of the recipe's epochs, and the longer dense network gets these too.
    """
    epochs = task.recipe.epochs
    points: dict[str, str | None] = {f"after 1/{part}": f"{epochs // part}ep" for part in parts}
    drawn = GreedyChannels(0.5, repeat=False, candidates=candidates, samples=64, fine_tune=epochs // 2)
    arms = {
        "dense": ClaimArm(None),
        "dense, longer": ClaimArm(None, extra_epochs=epochs // 2),
        **{name: ClaimArm(replace(drawn, pretrain=point)) for name, point in {**points, "after all": None}.items()},
    }
    return Protocol(task, arms, seeds, minutes)


def protocols(task: TaskOptions, parts: tuple[int, ...], minutes: str) -> dict[Level, Protocol]:
    return {
        "quick": stopped(trained(task, 2), (2,), 2, "3", candidates=2),
        "standard": stopped(task, parts, 3, minutes),
        "full": stopped(replace(CIFAR, model=task.model), (8, 4, 2), 5, FULL, candidates=50),
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
            f"MobileNetV2; training stopped within one cosine schedule of {task.recipe.epochs} epochs, and "
            f"{task.recipe.epochs // 2} epochs of fine-tuning through a schedule of its own, for every ticket. Half of "
            "the channels of each layer, each picked once from 8 random candidates by the loss on 64 new images, "
            "without tuning between the layers. In all, the ticket drawn after half of training has had as many "
            "epochs as the dense network, and the one drawn after all as the longer dense one; those drawn sooner "
            "have had fewer."
        ),
        protocols=protocols(task, parts, minutes),
        expected=(
            *(Expectation(f"after 1/{part}", "≥", "after all") for part in parts),
            Expectation("after 1/2", "≥", "dense"),
            Expectation("after all", "≥", "dense, longer"),
        ),
    )
    for id, where, task, parts, minutes in (
        ("greedy-pretraining", "ResNet-20", trained(BENCH, 4), (4, 2), "13"),
        ("greedy-pretraining-vgg11", "VGG-11 of a quarter's width", trained(VGG, 8), (8, 4, 2), "8"),
    )
)
