"""The claims of WORM against Early-Bird, on residual networks, VGG and transformers."""

from __future__ import annotations

from dataclasses import replace

from tombola.methods import EarlyBird, Worm
from tombola.papers.claims.claim import Claim, ClaimArm, Level, Protocol
from tombola.papers.claims.early_bird import COMPARED, IMAGES, RECOVERED, RESNET, VGG, measured, protocols
from tombola.papers.claims.first import BENCH, trained
from tombola.papers.claims.outcome import Expectation
from tombola.structure import QueryKey
from tombola.studies import RECIPES, TaskOptions
from tombola.training import Recipe

WORM = "Vasudev et al., WORM, ENLSP at NeurIPS 2024"
SWEPT = (1.0, 0.5, 0.1, 0.05, 0.01, 3e-3, 0.0)
VIT = replace(
    BENCH,
    model="vit-tiny",
    width=0.34,
    recipe=Recipe(epochs=8, optimizer="adamw", lr=1e-3, weight_decay=0.05, warmup=1, precision="float32"),
)
MINILM = TaskOptions(data="vader", model="minilm", recipe=replace(RECIPES["vader"], epochs=3))


def versus(early_bird: EarlyBird, worm: Worm, recovery: str) -> dict[str, ClaimArm]:
    arms: dict[str, ClaimArm] = {}
    for name, drawn in (("early-bird", early_bird), ("worm", worm)):
        arms |= {f"{name}, {what}": measured(drawn, what) for what in (*COMPARED, recovery)} | {name: ClaimArm(drawn)}
    return arms


def versus_arms() -> dict[str, ClaimArm]:
    return versus(EarlyBird(0.5), Worm(0.5), "epochs to recover")


def versus_expected(recovery: str = "epochs to recover") -> tuple[Expectation, ...]:
    sooner = (Expectation(f"early-bird, {what}", ">", f"worm, {what}") for what in (*COMPARED, recovery))
    return (*sooner, Expectation("worm", "≥", "early-bird"))


def attention_arms(epsilon: float) -> dict[str, ClaimArm]:
    """The single weights of queries and keys, in a window of three; the margin is half of epsilon, as the paper's."""
    early = EarlyBird(0.5, epsilon=epsilon, window=3, granularity=QueryKey())
    worm = Worm(0.5, epsilon=epsilon, window=3, margin=epsilon / 2, granularity=QueryKey())
    return {"dense": ClaimArm(None), **versus(early, worm, "epochs to regain")}


def window_arms() -> dict[str, ClaimArm]:
    arms: dict[str, ClaimArm] = {}
    for name, drawn in (("early-bird", EarlyBird(0.5)), ("worm", Worm(0.5))):
        later = replace(drawn, untrained=False)
        arms |= {
            f"{name}, ticket epoch": measured(drawn, "ticket epoch"),
            f"{name} without the first mask, ticket epoch": measured(later, "ticket epoch"),
        }
    return arms


def sweep_arms() -> dict[str, ClaimArm]:
    arms: dict[str, ClaimArm] = {}
    for factor in SWEPT:
        drawn = EarlyBird(0.5) if factor == 1 else Worm(0.5, truncation=factor, truncate="always")
        arms |= {f"r = {factor:g}": ClaimArm(drawn)}
        arms |= {f"r = {factor:g}, {what}": measured(drawn, what) for what in (*COMPARED, "epochs to recover")}
    return arms


def attention_protocols(task: TaskOptions, epsilon: float, seeds: int, minutes: str) -> dict[Level, Protocol]:
    own, small = attention_arms(epsilon), replace(VIT, data="digits")
    return {
        "quick": Protocol(trained(small, 4), own, 2, "1"),
        "standard": Protocol(task, own, seeds, minutes),
        "full": Protocol(task, attention_arms(0.01), 7, "days"),
    }


PRETRAINED = (
    "The paper starts from weights trained on ImageNet, which cannot be had here, and its public code measures on "
    "training images and does not use the mask that it finds: its figures are not comparable with these. Here: from "
    "scratch, the ticket's own mask, held; work in FLOPs for time."
)

VERSUS = tuple(
    Claim(
        id=id,
        title=f"WORM against Early-Bird from the same seeds ({where})",
        statement=(
            "Truncating the gradients of the channels about to be dropped, WORM draws its ticket sooner than "
            "Early-Bird, takes less time in all, loses less accuracy in pruning and recovers in fewer epochs, "
            "with no worse accuracy in the end."
        ),
        source=f"{WORM}, tables 2 and 3",
        differs=f"{IMAGES}. {PRETRAINED} Recovered is {RECOVERED:.0%} on the validation split, for 90 %.",
        protocols=protocols(task, versus_arms, seeds, minutes),
        expected=versus_expected(),
    )
    for id, where, task, seeds, minutes in (
        ("worm", "ResNet-20", RESNET, 7, "40"),
        ("worm-vgg11", "VGG-11", VGG, 3, "10"),
    )
)

ATTENTION = tuple(
    Claim(
        id=id,
        title=f"WORM against Early-Bird on the weights of queries and keys ({where})",
        statement=(
            "On transformers too, WORM draws its ticket no later than Early-Bird, takes less time in all, loses less "
            "accuracy in pruning and recovers in fewer epochs, with no worse accuracy in the end."
        ),
        source=f"{WORM}, tables 4 to 6 (BERT on SST-2, MRPC and RTE)",
        differs=differs,
        protocols=attention_protocols(task, epsilon, seeds, minutes),
        expected=versus_expected("epochs to regain"),
    )
    for id, where, task, epsilon, seeds, minutes, differs in (
        (
            "worm-vit",
            "vit-tiny",
            VIT,
            0.1,
            3,
            "30",
            "A vision transformer of a third of its width from scratch, on Fashion-MNIST at 14×14, for a pretrained "
            "BERT; a distance of 0.1 for 0.01, which training from scratch reaches only where it ends.",
        ),
        (
            "worm-minilm",
            "MiniLM",
            MINILM,
            0.01,
            1,
            "40",
            "MiniLM (6 layers) and the VADER film sentences for BERT-base and GLUE; one optimizer throughout, for a "
            "new one each epoch; the ticket's own mask, held, for another of all linear layers. One seed: it decides "
            "nothing.",
        ),
    )
)

WINDOW = Claim(
    id="worm-window",
    title="Is WORM's sooner ticket the mask before training leaving the window?",
    statement=(
        "WORM draws its ticket sooner than Early-Bird also where the mask before training is not one of the window's "
        "five. (In the paper's figure 1 the distances fall exactly when that mask leaves the window.)"
    ),
    source=f"{WORM}, figure 1",
    differs=f"{IMAGES}. {PRETRAINED}",
    protocols=protocols(VGG, window_arms, 3, "10"),
    expected=(
        Expectation("early-bird, ticket epoch", ">", "worm, ticket epoch"),
        Expectation(
            "early-bird without the first mask, ticket epoch", ">", "worm without the first mask, ticket epoch"
        ),
    ),
)

SWEEP = Claim(
    id="worm-sweep",
    title="The harder gradients are truncated from the start, the sooner the ticket",
    statement=(
        "With gradients truncated by r from the first epoch on, a smaller r draws the ticket sooner, in less time, and "
        "loses less in pruning (VGG-11: epoch 7 at r = 1, 5 at r = 0.01; 237 s and 213 s; 22 and 26 % after pruning), "
        "for more epochs to recover."
    ),
    source=f"{WORM}, table 1",
    differs=f"{IMAGES}. {PRETRAINED} Values of r below 0.01 are ours.",
    protocols=protocols(VGG, sweep_arms, 3, "30"),
    expected=(
        *(Expectation(f"r = 1, {what}", ">", f"r = 0.01, {what}") for what in COMPARED),
        Expectation("r = 0.01", "≥", "r = 1"),
    ),
)

AGAINST_EARLY_BIRD = (*VERSUS, *ATTENTION, WINDOW, SWEEP)
