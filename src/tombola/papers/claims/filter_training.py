"""How rankings of filters settle where workers share them, and how many bytes such a training sends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from tombola.methods import LoFT, find
from tombola.methods.communication import Communication, pipelined
from tombola.methods.filter_division import Divisions, InnerFilters
from tombola.papers.claims.units import Unit
from tombola.structure import Channels
from tombola.studies import RECIPES, Engine, TaskOptions, make_task
from tombola.tickets import parameters_of
from tombola.training import Recipe, Run
from tombola.zoo.resnet import large_resnet

EPOCHS = Unit("epochs", "epochs", 1, 0.5, ends=(0.0, math.inf))
CHANCE = Unit("of chance", "%", 100, 0.005)
WAYS = {"LoFT": LoFT(epsilon=0.0), "one worker": LoFT(epsilon=0.0, team=1, momentum="kept")}
"""Filters shared among two workers; and usual training, as which one worker that keeps its momentum trains."""


@dataclass(frozen=True)
class FilterRankings:
    """How soon the rankings of filters settle, in networks of several widths, with two workers and with one.

    Args:
        data: of the registry.
        model: of the registry.
        widths: of the network, as multiples of its own.
        epochs: of each training.
        settled: a ranking has settled when it is less than this share of chance from that of the epoch before, from
            then on.
    """

    data: str = "fashion-mnist-14"
    model: str = "preresnet20"
    widths: tuple[float, ...] = (0.5, 1.0)
    epochs: int = 12
    settled: float = 0.1

    def __call__(self, seed: int, engine: Engine, data_dir: Path | None) -> Mapping[str, float]:
        figures: dict[str, float] = {"half of training": self.epochs / 2}
        for width in self.widths:
            recipe = replace(RECIPES.get(self.data, Recipe()), epochs=self.epochs)
            task = make_task(
                TaskOptions(
                    self.data, self.model, width=width, initialisation="fan-out", recipe=recipe, data_dir=data_dir
                )
            )
            for way, method in WAYS.items():
                run = Run(seed, device=engine.executor.device, bars=engine.executor.bars)
                find(task, method, run=run)
                shares = [row["ranking_share"] for row in run.history if "ranking_share" in row]
                figures[_settles(way, width)] = 2.0 + last_above(shares, self.settled)
                figures[_distance(way, width)] = fmean(shares)
        return figures

    @property
    def epochs_of_training(self) -> float:
        """How many epochs of training a seed takes, about."""
        return len(self.widths) * len(WAYS) * self.epochs

    @property
    def units(self) -> dict[str, Unit]:
        each = [(way, width) for width in self.widths for way in WAYS]
        return {
            "half of training": EPOCHS,
            **{_settles(*own): EPOCHS for own in each},
            **{_distance(*own): CHANCE for own in each},
        }

    def ran(self, seeds: int) -> str:
        """What was done, in words."""
        return (
            f"{self.model} on {self.data} at {' and '.join(f'{width:g}' for width in self.widths)} times the channels, "
            f"{self.epochs} epochs of the usual recipe, started by fan-out with a narrow classifier. LoFT: two "
            "workers, merged after every 15 steps. One worker: "
            "usual training. After each epoch the filters of every prunable layer are ranked by their squared norms. "
            "The distance F of a ranking from that of the epoch before is a share of its mean over random rankings, "
            f"averaged over layers. It has settled when it stays below {self.settled:g}; the distance is its mean over "
            "epochs. The test split is not read."
        )


def last_above(shares: list[float], settled: float) -> int:
    """How many of the first values come up to the last that is not below a limit."""
    return next((place + 1 for place in reversed(range(len(shares))) if shares[place] >= settled), 0)


def _settles(way: str, width: float) -> str:
    return f"{way} settles, width {width:g}"


def _distance(way: str, width: float) -> str:
    return f"distance, {way}, width {width:g}"


GAINS = {
    "ResNet-34, 2 workers": (131.88, 104.59),
    "ResNet-34, 4 workers": (461.60, 144.27),
    "ResNet-18, 2 workers": (20954.24, 791.09),
    "ResNet-18, 4 workers": (52385.59, 1284.84),
}
"""The table's gigabytes of GPipe and of LoFT; ResNet-34 on CIFAR-10, ResNet-18 on ImageNet."""
EACH = {"ResNet-34": ((3, 4, 6, 3), 10), "ResNet-18": ((2, 2, 2, 2), 1000)}


@dataclass(frozen=True)
class CountedBytes:
    """What LoFT, a pipeline and data-parallel training send, counted on the paper's networks; nothing trains.

    Args:
        steps: of training for which bytes are counted.
        local_steps: of each worker between two divisions.
    """

    steps: int = 1500
    local_steps: int = 15

    def __call__(self, seed: int, engine: Engine, data_dir: Path | None) -> Mapping[str, float]:
        figures = {"one": 1.0}
        for name, (blocks, classes) in EACH.items():
            counts = {workers: count_of(blocks, classes, workers) for workers in (2, 4)}
            sent = {workers: own.filterwise(self.steps, self.local_steps) for workers, own in counts.items()}
            published = GAINS[f"{name}, 4 workers"][1] / GAINS[f"{name}, 2 workers"][1]
            figures[f"{name}: LoFT of 4 ÷ of 2 workers, counted ÷ published"] = sent[4] / sent[2] / published
            for workers, own in counts.items():
                saved = own.data_parallel(self.steps) / sent[workers]
                figures[f"{name}, {workers} workers: data-parallel ÷ LoFT"] = saved
        pipelines = [pipelined([16_384], 50_000 * 20), pipelined([32_768, 16_384, 8_192], 50_000 * 20)]
        published = GAINS["ResNet-34, 4 workers"][0] / GAINS["ResNet-34, 2 workers"][0]
        figures["ResNet-34: GPipe of 4 ÷ of 2 workers, counted ÷ published"] = pipelines[1] / pipelines[0] / published
        return figures | {f"{name}: GPipe ÷ LoFT, published": gpipe / loft for name, (gpipe, loft) in GAINS.items()}

    @property
    def units(self) -> dict[str, Unit]:
        ratio = Unit("times", "", 1, 0.01)
        names = [f"{name}: LoFT of 4 ÷ of 2 workers, counted ÷ published" for name in EACH]
        names += [f"{name}, {workers} workers: data-parallel ÷ LoFT" for name in EACH for workers in (2, 4)]
        names += ["ResNet-34: GPipe of 4 ÷ of 2 workers, counted ÷ published"]
        names += [f"{name}: GPipe ÷ LoFT, published" for name in GAINS]
        return {"one": ratio, **dict.fromkeys(names, ratio)}

    def ran(self, seeds: int) -> str:
        """What was done, in words."""
        return (
            "Parameters of ResNet-34 (10 classes) and ResNet-18 (1,000 classes) at their usual width were counted: "
            "those that every worker has, and those of filters inside blocks that are not the first of their stage, in "
            "all stages but the first. A merge sends each worker's network and its next one, 4 bytes a number; "
            f"data-parallel training each worker's gradient and the mean one in every step. {self.steps:,} steps, a "
            f"merge every {self.local_steps}. Nothing trains, so all seeds give the same."
        )


def count_of(blocks: tuple[int, ...], classes: int, workers: int) -> Communication:
    """The count of a pre-activation ResNet for images of 32×32, by the parameters of its workers' networks."""
    with torch.device("meta"):
        model = large_resnet("pre-activation", blocks, 1, (3, 32, 32), classes)

    def probe(network: nn.Module) -> Tensor:
        return network(torch.zeros(2, 3, 32, 32, device="meta"))

    divisions = Divisions(InnerFilters.of(model, Channels().units(model, probe), probe, "later"), model, workers)
    return divisions.count(parameters_of(model))
