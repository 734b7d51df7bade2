"""Instability, tickets and optima of iterative pruning by the size of the batch (Maene et al., 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from scipy.stats import spearmanr

from tombola.connectivity import landscape, solutions, stability
from tombola.evidence import Against, control
from tombola.methods import Iterative
from tombola.papers.claims.units import GAIN, POINTS, Unit
from tombola.studies import Engine, TaskOptions, make_task
from tombola.training import Recipe, Run, Task, evaluate, train

CORRELATION = Unit("of rank correlation", "", 1, 0.1, ends=(-1.0, 1.0))
RIGHT_ANGLES = Unit("right angles", "", 1, 0.02)
RULES = ("epochs", "steps")
FIGURES: Mapping[str, Unit] = {
    **dict.fromkeys(("instability", "ticket", "fresh init"), POINTS),
    "advantage": GAIN,
    "angle": RIGHT_ANGLES,
    "barrier": POINTS,
}
"""What is measured at each size, and in which unit."""


@dataclass(frozen=True)
class BatchSizes:
    """Whether iterative pruning finds tickets where training is stable, over sizes of the batch.

    Args:
        data: of the registry.
        model: of the registry.
        width: its width.
        batches: the sizes.
        epochs: of each training, at equal epochs.
        steps_of: at equal steps, all sizes take as many steps as this size takes in one epoch.
        lr: learning rate of SGD with momentum 0.9, the same for all sizes.
        rounds: of pruning.
        density: of the ticket.
        points: of a line.
    """

    data: str = "digits"
    model: str = "lenet-300-100"
    width: float = 1.0
    batches: tuple[int, ...] = (8, 32, 128, 512)
    epochs: int = 10
    steps_of: int = 8
    lr: float = 0.1
    rounds: int = 6
    density: float = 0.05
    points: int = 15

    def __call__(self, seed: int, engine: Engine, data_dir: Path | None) -> Mapping[str, float]:
        figures: dict[str, float] = {"none": 0.0}
        for rule in RULES:
            for batch in self.batches:
                epochs = self.epochs if rule == "epochs" else max(1, batch // self.steps_of)
                found = self._cell(self.task(batch, epochs, data_dir), seed, engine)
                figures |= {cell(name, rule, batch): found[name] for name in FIGURES}
            if len(self.batches) > 2:
                figures[f"rank correlation, equal {rule}"] = self._correlation(figures, rule)
        return figures

    def _correlation(self, figures: Mapping[str, float], rule: str) -> float:
        """The rank correlation of instability with the advantage of tickets over the sizes."""
        columns = ([figures[cell(name, rule, own)] for own in self.batches] for name in ("instability", "advantage"))
        correlation = spearmanr(*columns).statistic
        return 0.0 if math.isnan(correlation) else float(correlation)

    def task(self, batch: int, epochs: int, data_dir: Path | None) -> Task:
        """What is learnt at a size of the batch."""
        recipe = Recipe(epochs, batch, lr=self.lr, weight_decay=0.0, schedule="constant", precision="float32")
        return make_task(TaskOptions(self.data, self.model, self.width, recipe=recipe, data_dir=data_dir))

    def _cell(self, task: Task, seed: int, engine: Engine) -> dict[str, float]:
        run = Run(seed, device=engine.executor.device, bars=engine.executor.bars)
        copies = stability(task, orders=3, points=self.points, statistics=("anew",), seed=seed, run=run)
        method = Iterative(density=self.density, count=self.rounds)
        found = solutions(task, method, seed=seed, run=run)
        arm = control("fresh-init", Against(task, found.ticket, seed, method))
        fresh = train(task, arm.ticket, run=run.part("fresh", seed)).metric
        ticket, _, _ = evaluate(task, found["ticket"].network, "test", task.recipe)
        consecutive = [landscape(task, pair, points=self.points) for pair in pairwise(found.networks)]
        return {
            "instability": copies.points[0].barrier,
            "ticket": ticket,
            "fresh init": fresh,
            "advantage": ticket - fresh,
            "angle": fmean(own.angles[0][1] for own in consecutive),
            "barrier": fmean(own.barriers[0][1] for own in consecutive),
        }

    @property
    def epochs_of_training(self) -> float:
        """How many epochs of training a seed takes, about."""
        return len(RULES) * len(self.batches) * (self.rounds + 4) * self.epochs

    @property
    def units(self) -> dict[str, Unit]:
        cells = [(rule, batch) for rule in RULES for batch in self.batches]
        return {
            **{f"rank correlation, equal {rule}": CORRELATION for rule in RULES if len(self.batches) > 2},
            "none": CORRELATION,
            **{cell(name, *own): unit for name, unit in FIGURES.items() for own in cells},
        }

    def ran(self, seeds: int) -> str:
        """What was done, in words."""
        return (
            f"{self.model} on {self.data} with batches of {', '.join(map(str, self.batches))}, SGD (momentum 0.9, "
            f"learning rate {self.lr:g} for all sizes, constant, no weight decay). At equal epochs each training takes "
            f"{self.epochs}; at equal steps it takes as many as batches of {self.steps_of} take in one epoch. "
            "Instability: the mean barrier of test error of three pairs of copies from the initialisation, on lines of "
            f"{self.points} points. Tickets: {self.rounds} rounds of pruning by magnitude, rewound to the "
            f"initialisation, to density {self.density:g}. Advantage: the ticket's test accuracy less that of its mask "
            "on a fresh initialisation. Angle and barrier: the mean over rounds that follow each other and the ticket "
            "at the end." + " Each seed has one rank correlation (Spearman) over the sizes." * (len(self.batches) > 2)
        )


def cell(name: str, rule: str, batch: int) -> str:
    """What a figure is called.

    Examples:
        >>> cell("angle", "steps", 64)
        'angle, 64, equal steps'
    """
    return f"{name}, {batch}, equal {rule}"
