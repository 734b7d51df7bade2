"""How much pre-training is enough, by size of the data: greedy tickets of networks trained on parts of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from tombola.errors import TombolaError
from tombola.methods import CurvePoint, EnoughFormula, EnoughPretraining, GreedyNeurons, Saturation, saturation
from tombola.papers.pretraining.theory import Growth
from tombola.structure import two_layers
from tombola.studies.executor import Engine
from tombola.studies.prepared import search
from tombola.training import MemoryBatches, Run, SupervisedTask, accuracy, length_of, pick

JUDGED = 3000
"""Validation samples that tickets are judged by; the loop looks at them after each epoch, and small parts have many."""


@dataclass(frozen=True)
class PretrainingPoint:
    """One network trained on so many examples: the tickets drawn on the way, and when they stopped getting better.

    last: of the ticket drawn at the end the losses after each pick, the whole network's, and the neurons' variance.
    """

    examples: int
    seed: int
    curve: tuple[CurvePoint, ...]
    saturation: Saturation
    last: Mapping[str, Any]


@dataclass(frozen=True)
class EnoughStudy:
    """What was measured, by size and seed. inputs: the d of the formula; own: how tickets were drawn and judged."""

    inputs: int
    own: EnoughPretraining
    runs: tuple[PretrainingPoint, ...]

    @property
    def picks(self) -> int:
        """The k of the formula."""
        return self.own.picks

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(sorted({own.examples for own in self.runs}))

    @property
    def steps(self) -> dict[int, float]:
        """The steps that were enough at each size, as the geometric mean over seeds."""
        return {size: math.exp(_mean([math.log(own.saturation.step) for own in self._of(size)])) for size in self.sizes}

    @property
    def settled(self) -> dict[int, int]:
        """In how many seeds of each size enough tickets came after the saturation to believe it."""
        return {size: sum(own.saturation.settled for own in self._of(size)) for size in self.sizes}

    @property
    def seeds(self) -> int:
        return len(self._of(self.sizes[0]))

    @property
    def growth(self) -> Growth | None:
        """How the steps grow with the size; None for fewer than three sizes."""
        return Growth.of(list(self.steps.items())) if len(self.sizes) > 2 else None

    def fitted(self, size: int) -> EnoughFormula | None:
        """The formula with c fitted on all smaller sizes, so that it predicts this one; None if there is none."""
        smaller = [(own, steps) for own, steps in self.steps.items() if own < size]
        descent = self.own.formula.descent
        fits = smaller and self.picks > 1
        return EnoughFormula.fitted(smaller, inputs=self.inputs, picks=self.picks, descent=descent) if fits else None

    def said(self, size: int, formula: EnoughFormula | None) -> float | None:
        """The steps that a formula says for a size; None where there is none, or c · d is too large."""
        try:
            return None if formula is None else formula.steps(self.inputs, size, self.picks)
        except TombolaError:
            return None

    def mean(self, size: int) -> list[dict[str, float]]:
        """The curve of a size, mean over the seeds that have each of its steps."""
        named: dict[int, list[CurvePoint]] = {}
        for run in self._of(size):
            for own in run.curve:
                named.setdefault(own.step, []).append(own)
        return [
            {
                "step": step,
                "ticket": _mean([own.ticket for own in each]),
                "whole": _mean([own.whole for own in each]),
                "seeds": len(each),
            }
            for step, each in sorted(named.items())
        ]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        growth = self.growth
        return {
            "inputs": self.inputs,
            "picks": self.picks,
            "sizes": [self._size(size) for size in self.sizes],
            "growth": None if growth is None else asdict(growth),
            "runs": [asdict(own) for own in self.runs],
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
        return [own for own in self.runs if own.examples == size]


def enough(
    task: SupervisedTask,
    own: EnoughPretraining,
    *,
    sizes: Sequence[int],
    steps: int,
    seeds: Sequence[int],
    engine: Engine,
) -> EnoughStudy:
    """Train on parts of the training data, each for as many steps, and draw greedy tickets on the way.

    The parts of a seed hold each other and are drawn at random from it. TombolaError for a part that is larger than the
    training data, for data that is not in memory, for networks that are not of two linear layers, and for targets that
    the task's accuracy cannot count.
    """
    if not sizes or not seeds:
        raise TombolaError("say which sizes and how many seeds; at least one of each")
    model = task.build(0)
    layers = two_layers(model, Run(0).probe(task))
    _, targets = next(iter(task.batches("train", 0, 0)))
    outputs = layers.last(model).out_features
    if task.metric is accuracy and (targets.is_floating_point() or outputs == 1):
        raise TombolaError(
            "tickets are judged by accuracy, which needs class numbers and an output a class, but the targets are "
            f"{str(targets.dtype).removeprefix('torch.')} and '{layers.output}' gives {outputs}; in Python give the "
            "task a metric"
        )
    each = sorted(set(sizes))
    runs = []
    with engine.executor.bars.track("networks", len(each) * len(seeds)) as tick:
        for seed in seeds:
            for size in each:
                curve, last = _drawn(part(task, size, seed, steps), own, seed, steps, engine)
                found = saturation(curve, own.tolerance, own.patience)
                if found is None:
                    raise TombolaError(f"{steps} steps are over before the first ticket is drawn; train longer")
                runs.append(PretrainingPoint(size, seed, curve, found, last))
                tick(f"{size:,} examples, seed {seed}: enough after {found.step:,} steps")
    return EnoughStudy(layers.inputs, own, tuple(runs))


def part(task: SupervisedTask, examples: int, seed: int, steps: int) -> SupervisedTask:
    """The same task on so many of its training examples, trained for about so many steps."""
    batches, judged = task.batches("train", 0, 0), task.batches("validation", 0, 0)
    if not (isinstance(batches, MemoryBatches) and isinstance(judged, MemoryBatches)):
        raise TombolaError("parts are taken of data in memory; give training and validation data as pairs of tensors")
    if not 1 < examples <= batches.count:
        raise TombolaError(f"a part of {examples} examples is asked of {batches.count}; give sizes from 2 to that")
    order = torch.randperm(batches.count, generator=torch.Generator().manual_seed(seed))[:examples]
    data = {
        "train": (pick(batches.inputs, order), pick(batches.targets, order)),
        "validation": (pick(judged.inputs, slice(JUDGED)), judged.targets[:JUDGED]),
        "test": task.data["test"],
    }
    smaller = replace(task, data=data, labels={})
    epochs = math.ceil(steps / length_of(smaller.batches("train", 0, 0)))
    return replace(smaller, recipe=replace(task.recipe, epochs=epochs))


def _drawn(
    task: SupervisedTask, own: EnoughPretraining, seed: int, steps: int, engine: Engine
) -> tuple[tuple[CurvePoint, ...], dict[str, Any]]:
    """The tickets drawn in these steps of a network's training, and the losses of the one drawn at its end.

    What was drawn before is read. Training goes on to the end of an epoch, which is later the larger the part is.
    """
    usual = {} if own.stop else {"tolerance": EnoughPretraining.tolerance, "patience": EnoughPretraining.patience}
    drawing = replace(own, formula=EnoughFormula(), **usual)
    method = GreedyNeurons(picks=own.picks, repeat=own.repeat, examples=own.examples, until=drawing)
    _, folder = search(task, method, seed, engine.store, engine.executor)
    rows = {row["stage"]: row for row in folder.history()}
    last = {name: rows["selection"][name] for name in ("losses", "whole", "variance")}
    return tuple(CurvePoint(**drawn) for drawn in rows["enough"]["curve"] if drawn["step"] <= steps), last


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
