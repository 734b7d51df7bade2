"""When tickets of two-layer networks stop getting better, by the size of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch.nn.functional as F

from tombola import zoo
from tombola.methods import EnoughPretraining
from tombola.papers.claims.units import POINTS, RATIO, Unit
from tombola.papers.pretraining import EnoughStudy, enough
from tombola.studies import Engine
from tombola.training import Recipe, SupervisedTask, half_squared_error

STEPS = Unit("steps", "steps", 1, 1)
GAIN = Unit("points a doubling", "points", 100, 0.0005)
EXPONENT = Unit("powers of m", "", 1, 0.05)
MISFIT = Unit("misfit", "", 1, 0.01)


@dataclass(frozen=True)
class Growing:
    """When tickets of two-layer networks stop getting better, by the size of the data, and how that grows.

    Args:
        sizes: numbers of training images.
        steps: of pre-training on each size.
        width: of the network, in thousands of neurons.
        lr: learning rate; it is high because the mean-field form divides gradients by the number of neurons.
        enough: how tickets are drawn and judged.
        judged: on how many validation images tickets are judged.
    """

    sizes: tuple[int, ...] = (1_000, 3_000, 10_000, 25_000, 50_000)
    steps: int = 3000
    width: float = 1.0
    lr: float = 50.0
    enough: EnoughPretraining = field(default_factory=lambda: EnoughPretraining(picks=100, growth=1.4, stop=False))
    judged: int = 3000

    def __call__(self, seed: int, engine: Engine, data_dir: Path | None) -> Mapping[str, float]:
        task = self.task(data_dir)
        return figures_of(
            enough(
                task, self.enough, sizes=self.sizes, steps=self.steps, seeds=[seed], engine=engine, judged=self.judged
            )
        )

    def task(self, data_dir: Path | None) -> SupervisedTask:
        """Fashion-MNIST at 14×14, the last 10,000 training images for validation, and a two-layer network."""
        (images, labels), test = (zoo.data("fashion-mnist", data_dir)[split] for split in ("train", "test"))
        small = F.avg_pool2d(images, 2)
        data = {
            "train": (small[:50_000], labels[:50_000]),
            "validation": (small[50_000:], labels[50_000:]),
            "test": (F.avg_pool2d(test[0], 2), test[1]),
        }
        recipe = Recipe(lr=self.lr, schedule="constant", weight_decay=0.0, precision="float32")
        return SupervisedTask(zoo.model("two-layer", (1, 14, 14), 10, self.width), data, half_squared_error, recipe)

    @property
    def units(self) -> dict[str, Unit]:
        return {
            **{f"enough at {size:,}": STEPS for size in self.sizes},
            **{f"ticket at {size:,}": POINTS for size in self.sizes},
            **{f"gain {when} it, {size:,}": GAIN for size in self.sizes for when in ("before", "after")},
            "exponent": EXPONENT,
            "the formula's exponent": EXPONENT,
            "misfit of a power law": MISFIT,
            "misfit of a logarithm": MISFIT,
            "measured ÷ predicted with c of smaller sizes": RATIO,
        }

    def ran(self, seeds: int) -> str:
        """What was done, in words."""
        return (
            f"Networks of {1000 * self.width:,.0f} tanh neurons in mean-field form on random parts of "
            f"{', '.join(f'{size:,}' for size in self.sizes)} images, trained for {self.steps:,} steps of 128 with SGD "
            f"(learning rate {self.lr:g}, momentum 0.9, half squared error to one-hot classes); greedy tickets of "
            f"{self.enough.picks} picks on {self.enough.examples:,} training images after each "
            f"{self.enough.growth:g} times as many steps, judged on {self.judged:,} validation images, without "
            f"fine-tuning. Enough is the first ticket within {100 * self.enough.tolerance:g} point of the best, by "
            "medians of three neighbours. Misfits are root mean squares of ln(measured ÷ fitted) over the sizes of one "
            "seed. The test split is not read."
        )


def figures_of(study: EnoughStudy) -> dict[str, float]:
    """The figures of a study of one seed, by name."""
    figures: dict[str, float] = {}
    for run in study.runs:
        first, last, size = run.curve[0], run.curve[-1], f"{run.examples:,}"
        figures |= {f"enough at {size}": float(run.saturation.step), f"ticket at {size}": run.saturation.metric}
        before = gain(first.step, first.ticket, run.saturation.step, run.saturation.metric)
        after = gain(run.saturation.step, run.saturation.metric, last.step, last.ticket)
        figures |= {f"gain before it, {size}": before, f"gain after it, {size}": after}
    growth, largest = study.growth, study.sizes[-1]
    predicted = study.said(largest, study.fitted(largest))
    assert growth is not None
    assert predicted is not None
    return figures | {
        "exponent": growth.exponent,
        "the formula's exponent": 2.0,
        "misfit of a power law": growth.power_misfit,
        "misfit of a logarithm": growth.logarithm_misfit,
        "measured ÷ predicted with c of smaller sizes": study.steps[largest] / predicted,
    }


def gain(step: int, metric: float, later: int, then: float) -> float:
    """The gain in the metric per doubling of the steps, between two tickets."""
    doublings = math.log2(later / step)
    return (then - metric) / doublings if doublings else 0.0
