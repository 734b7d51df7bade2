"""How much pre-training is enough, by size of the data: greedy tickets of networks trained on parts of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from tombola.errors import TombolaError
from tombola.methods import CurvePoint, EnoughFormula, EnoughPretraining, GreedyNeurons, Saturation, saturation
from tombola.papers.pretraining.theory import Growth
from tombola.registry import lower_is_better
from tombola.structure import two_layers
from tombola.studies.execution import search
from tombola.studies.executor import Engine
from tombola.training import MemoryBatches, Run, SupervisedTask, accuracy, first_of, length_of, metric_of, pick

JUDGED = 3000
"""How many validation samples judge tickets. The loop evaluates them after each epoch, and small parts have many."""


@dataclass(frozen=True)
class PretrainingPoint:
    """One network trained on one part of the data: its tickets, and when they stopped getting better.

    Args:
        examples: how many the part has.
        seed: of the part and of the training.
        curve: the tickets drawn on the way.
        saturation: the first ticket that was good enough.
        last: for the ticket drawn at the end: "losses" after each pick, the loss of the "whole" network, and the
            "variance" of its neurons.
    """

    examples: int
    seed: int
    curve: tuple[CurvePoint, ...]
    saturation: Saturation
    last: Mapping[str, Any]


@dataclass(frozen=True)
class EnoughStudy:
    """What was measured, by size and seed.

    Args:
        inputs: how many inputs the network has, the d of the formula.
        own: how tickets were drawn and judged.
        runs: one for each seed and size.
    """

    inputs: int
    own: EnoughPretraining
    runs: tuple[PretrainingPoint, ...]

    @property
    def picks(self) -> int:
        """The k of the formula."""
        return self.own.picks

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of examples, the smallest first."""
        return tuple(sorted({run.examples for run in self.runs}))

    @property
    def steps(self) -> dict[int, float]:
        """The steps that were enough at each size, as the geometric mean over seeds."""
        return {size: math.exp(_mean([math.log(run.saturation.step) for run in self._of(size)])) for size in self.sizes}

    @property
    def settled(self) -> dict[int, int]:
        """For each size the number of seeds in which enough tickets came after the saturation to believe it."""
        return {size: sum(run.saturation.settled for run in self._of(size)) for size in self.sizes}

    @property
    def seeds(self) -> int:
        return len(self._of(self.sizes[0]))

    @property
    def growth(self) -> Growth | None:
        """How the steps grow with the size; None for fewer than three sizes."""
        return Growth.of(list(self.steps.items())) if len(self.sizes) > 2 else None

    def fitted(self, size: int) -> EnoughFormula | None:
        """The formula with c fitted on all smaller sizes, so that it predicts this one; None if nothing can be fitted.

        Args:
            size: the number of examples to predict for.
        """
        smaller = [(examples, steps) for examples, steps in self.steps.items() if examples < size]
        descent = self.own.formula.descent
        fits = smaller and self.picks > 1
        return EnoughFormula.fitted(smaller, inputs=self.inputs, picks=self.picks, descent=descent) if fits else None

    def said(self, size: int, formula: EnoughFormula | None) -> float | None:
        """The steps that a formula gives for a size; None if there is no formula, or if its c · d is too large."""
        try:
            return None if formula is None else formula.steps(self.inputs, size, self.picks)
        except TombolaError:
            return None

    def mean(self, size: int) -> list[dict[str, float]]:
        """The mean curve of a size; each step is averaged over the seeds that have it."""
        by_step: dict[int, list[CurvePoint]] = {}
        for run in self._of(size):
            for point in run.curve:
                by_step.setdefault(point.step, []).append(point)
        return [
            {
                "step": step,
                "ticket": _mean([point.ticket for point in points]),
                "whole": _mean([point.whole for point in points]),
                "seeds": len(points),
            }
            for step, points in sorted(by_step.items())
        ]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        growth = self.growth
        return {
            "inputs": self.inputs,
            "picks": self.picks,
            "sizes": [self._size(size) for size in self.sizes],
            "growth": None if growth is None else asdict(growth),
            "runs": [asdict(run) for run in self.runs],
        }

    def _size(self, size: int) -> dict[str, Any]:
        fitted = self.fitted(size)
        return {
            "examples": size,
            "steps": self.steps[size],
            "settled": self.settled[size],
            "seeds": self.seeds,
            "formula": self.said(size, self.own.formula),
            "fitted": self.said(size, fitted),
            "c": None if fitted is None else fitted.constant,
        }

    def _of(self, size: int) -> list[PretrainingPoint]:
        return [run for run in self.runs if run.examples == size]


def enough(
    task: SupervisedTask,
    pretraining: EnoughPretraining,
    *,
    sizes: Sequence[int],
    steps: int,
    seeds: Sequence[int],
    engine: Engine,
    judged: int = JUDGED,
) -> EnoughStudy:
    """Train on parts of the training data, and draw greedy tickets on the way (Wolfe et al., TMLR 2024).

    The parts of one seed are nested: each smaller part lies in the larger ones.

    Args:
        task: the whole data, and a network of two linear layers.
        pretraining: how tickets are drawn and judged.
        sizes: numbers of training examples.
        steps: how long to train on each part, in optimizer steps.
        seeds: of parts and trainings.
        engine: the store, and what carries out the training.
        judged: on how many validation samples tickets are judged.

    Raises:
        TombolaError: if a part is larger than the training data, the data is not in memory, the network does not have
            two linear layers, the task's accuracy cannot count the targets, or the steps end before the first ticket.
    """
    if not sizes or not seeds:
        raise TombolaError("say which sizes and how many seeds; at least one of each")
    model = task.build(0)
    layers = two_layers(model, Run(0).probe(task))
    _, targets = first_of(task.batches("train", 0, 0))
    outputs = layers.last(model).out_features
    if task.metric is accuracy and (targets.is_floating_point() or outputs == 1):
        raise TombolaError(
            "tickets are judged by accuracy, which needs class numbers and an output a class, but the targets are "
            f"{str(targets.dtype).removeprefix('torch.')} and '{layers.output}' gives {outputs}; in Python give the "
            "task a metric"
        )
    ascending = sorted(set(sizes))
    runs = []
    with engine.executor.bars.track("networks", len(ascending) * len(seeds)) as tick:
        for seed in seeds:
            for size in ascending:
                curve, last = _draw_tickets(part(task, size, seed, steps, judged), pretraining, seed, steps, engine)
                lower = bool(lower_is_better(metric_of(task)))
                first = saturation(curve, pretraining.tolerance, pretraining.patience, lower)
                if first is None:
                    raise TombolaError(f"{steps} steps are over before the first ticket is drawn; train longer")
                runs.append(PretrainingPoint(size, seed, curve, first, last))
                tick(f"{size:,} examples, seed {seed}: enough after {first.step:,} steps")
    return EnoughStudy(layers.inputs, pretraining, tuple(runs))


def part(task: SupervisedTask, examples: int, seed: int, steps: int, judged: int = JUDGED) -> SupervisedTask:
    """The same task on a part of its training data.

    Args:
        task: the whole task; its data lies in memory.
        examples: how many training examples the part has.
        seed: of the random choice; the parts of one seed are nested.
        steps: how long to train; the recipe gets the epochs that reach them.
        judged: on how many validation samples tickets are judged.

    Raises:
        TombolaError: if the data is not in memory, or if there are too few examples.
    """
    training, validation = task.batches("train", 0, 0), task.batches("validation", 0, 0)
    if not (isinstance(training, MemoryBatches) and isinstance(validation, MemoryBatches)):
        raise TombolaError("parts are taken of data in memory; give training and validation data as pairs of tensors")
    if not 1 < examples <= training.count:
        raise TombolaError(f"a part of {examples} examples is asked of {training.count}; give sizes from 2 to that")
    # The start of one permutation, so that the parts of a seed are nested.
    order = torch.randperm(training.count, generator=torch.Generator().manual_seed(seed))[:examples]
    data = {
        "train": (pick(training.inputs, order), pick(training.targets, order)),
        "validation": (pick(validation.inputs, slice(judged)), validation.targets[:judged]),
        "test": task.data["test"],
    }
    smaller = replace(task, data=data, labels={})
    epochs = math.ceil(steps / length_of(smaller.batches("train", 0, 0)))
    return replace(smaller, recipe=replace(task.recipe, epochs=epochs))


def _draw_tickets(
    task: SupervisedTask, pretraining: EnoughPretraining, seed: int, steps: int, engine: Engine
) -> tuple[tuple[CurvePoint, ...], dict[str, Any]]:
    """The tickets of a network's first steps, and the losses of the last ticket; a finished training is read.

    Training ends with an epoch, so it may draw tickets after these steps, which are left out.
    """
    # What only judges tickets is set to its default, so that one training serves studies that judge differently.
    defaults = (
        {} if pretraining.stop else {"tolerance": EnoughPretraining.tolerance, "patience": EnoughPretraining.patience}
    )
    drawing = replace(pretraining, formula=EnoughFormula(), **defaults)
    method = GreedyNeurons(
        picks=pretraining.picks, repeat=pretraining.repeat, examples=pretraining.examples, until=drawing
    )
    _, folder = search(task, method, seed, engine.store, engine.executor)
    rows = {row["stage"]: row for row in folder.history()}
    last = {name: rows["selection"][name] for name in ("losses", "whole", "variance")}
    return tuple(CurvePoint(**point) for point in rows["enough"]["curve"] if point["step"] <= steps), last


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
