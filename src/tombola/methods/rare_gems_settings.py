"""The settings with which Gem-Miner's paper ran it, by network and density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tombola.errors import TombolaError, unknown
from tombola.methods.supermask import GemMiner
from tombola.training import Recipe


@dataclass(frozen=True)
class Published:
    """A network's published settings: λ by density, how scores are searched, how tickets are trained."""

    penalties: dict[float, float]
    epochs: int
    milestones: tuple[float, ...]
    finetune_lr: float
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.1
    period: str = "5ep"
    batch: int = 128
    nesterov: bool = False
    pretrained: bool = False


PUBLISHED: dict[str, Published] = {
    "resnet20": Published({0.0059: 1e-4, 0.0144: 1e-4, 0.0372: 3e-5, 0.1334: 1e-5}, 150, (80 / 150, 0.8), 0.01),
    "mobilenet-v2": Published({0.014: 1.5e-5, 0.05: 7e-6, 0.2: 3e-6}, 300, (0.5, 250 / 300), 0.01),
    "vgg16": Published(dict.fromkeys((0.005, 0.014, 0.025, 0.05), 1e-6), 200, (0.5, 0.75), 0.05, "adam", 0.01),
    "wrn-28-2": Published(
        dict.fromkeys((0.014, 0.023, 0.055, 0.2), 1e-5), 150, (80 / 150, 0.8), 0.01, lr=0.5, period="10ep"
    ),
    "resnet32": Published({0.02: 1e-5, 0.05: 1e-5}, 150, (80 / 150, 0.8), 0.01),
    "resnet18": Published({0.005: 1e-5, 0.014: 5e-6, 0.05: 8e-6}, 200, (0.5, 0.75), 0.1, "adam", 0.001, batch=256),
    "resnet50": Published(
        dict.fromkeys((0.005, 0.014, 0.05), 1e-6), 150, (80 / 150, 0.8), 0.1, "adam", 0.01, nesterov=True
    ),
    "resnet50-pretrained": Published(
        {0.02: 5e-6, 0.05: 2e-6}, 50, (0.5, 2 / 3), 1e-4, "adam", 0.001, batch=16, pretrained=True
    ),
}


def rare_gems(network: str, density: float) -> tuple[GemMiner, Recipe]:
    """The search and the recipe that Sreenivasan et al. (NeurIPS 2022) published for a network and a density.

    They are read from the paper's public code.

    Args:
        network: on CIFAR-10 `resnet20`, `mobilenet-v2`, `vgg16` or `wrn-28-2`; on CIFAR-100 `resnet32` at half width;
            on Tiny-ImageNet `resnet18` or `resnet50`; on Caltech-101 `resnet50-pretrained`, whose pretrained weights
            are searched as they are.
        density: one for which they published a penalty; all are below one half.

    Returns:
        The method, and the recipe of its ticket's training.

    Raises:
        TombolaError: for a network or a density that they did not publish.

    Examples:
        >>> method, recipe = rare_gems("resnet20", 0.0144)
        >>> method.penalty, method.period, recipe.epochs, recipe.lr
        (0.0001, '5ep', 150, 0.01)
    """
    if network not in PUBLISHED:
        raise unknown("published network", network, PUBLISHED)
    published = PUBLISHED[network]
    if density not in published.penalties:
        densities = ", ".join(f"{each:g}" for each in published.penalties)
        raise TombolaError(f"no penalty was published for {network} at density {density:g}; there are {densities}")
    method = GemMiner(
        density,
        penalty=published.penalties[density],
        period=published.period,
        optimizer=published.optimizer,
        lr=published.lr,
        weights="own" if published.pretrained else "signed-constant",
        hold=not published.pretrained,
    )
    recipe = Recipe(
        epochs=published.epochs,
        batch=published.batch,
        lr=published.finetune_lr,
        nesterov=published.nesterov,
        schedule="multistep",
        milestones=published.milestones,
        augment=("crop", "flip"),
    )
    return method, recipe
