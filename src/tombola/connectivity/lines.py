"""The straight line between two trained networks: metric and loss on it, its barrier, how far its ends are apart."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tombola.connectivity.calm_data import first_samples, without_augmentation
from tombola.errors import TombolaError
from tombola.evidence import ACCURACY, Measure, measure_of
from tombola.shrinking import recalibrate
from tombola.structure import BATCH_NORMS
from tombola.tickets import Mask, check_fits, parameters_of, put_values, tensors_of
from tombola.training import Split, Task, evaluate, own_randomness

Statistics = Literal["anew", "interpolated"]
POINTS = 30


@dataclass(frozen=True)
class Line:
    """What was measured at evenly spaced points of a line, both ends among them.

    Args:
        split: that was measured on.
        statistics: of batch norms: taken anew at each point, or interpolated; "none" without batch norms.
        metrics: the task's metric at each point, from the second network to the first.
        losses: the loss at each point.
        samples: of the split.
        measure: what the metric is.
    """

    split: Split
    statistics: Statistics | Literal["none"]
    metrics: tuple[float, ...]
    losses: tuple[float, ...]
    samples: int
    measure: Measure = ACCURACY

    @property
    def barrier(self) -> float:
        """How much worse the metric gets than the mean of the ends; of accuracy, the rise of the error, as a share.

        Examples:
            >>> Line("test", "none", (0.9, 0.5, 0.7), (0.1, 2.0, 0.3), 100).barrier
            0.30000000000000004
        """
        better = [self.measure.sign * metric for metric in self.metrics]
        return (better[0] + better[-1]) / 2 - min(better)

    @property
    def loss_barrier(self) -> float:
        """How far the loss rises above the mean of the ends."""
        return max(self.losses) - (self.losses[0] + self.losses[-1]) / 2

    @property
    def resolution(self) -> float:
        """Two standard errors of the ends' mean error on so many samples; for a metric that is a share."""
        mean = (self.metrics[0] + self.metrics[-1]) / 2
        error = min(max(1 - mean, 1 / self.samples), 0.5) if self.samples else 0.5
        return 2 * math.sqrt(error * (1 - error) / max(self.samples, 1))


@dataclass(frozen=True)
class Ends:
    """Two trained networks of one architecture, which a line joins.

    Args:
        first: one network.
        second: the other one.
        masks: what each keeps; where they differ, the line runs over their intersection. None if nothing is masked.

    Raises:
        TombolaError: if the networks are of different shapes.
    """

    first: nn.Module
    second: nn.Module
    masks: tuple[Mask, Mask] | None = None

    def __post_init__(self) -> None:
        one, other = ({n: tuple(t.shape) for n, t in tensors_of(m).items()} for m in (self.first, self.second))
        if one != other:
            name = next(name for name in [*one, *other] if one.get(name) != other.get(name))
            raise TombolaError(
                f"no line joins these networks: '{name}' is {one.get(name)} in one and {other.get(name)} in the other; "
                "give two networks of one architecture"
            )
        for mask in self.masks or ():
            check_fits(mask, parameters_of(self.first))

    @property
    def differ_in_mask(self) -> bool:
        """Whether the line runs over the intersection of two masks."""
        return self.masks is not None and self.masks[0] != self.masks[1]

    @cached_property
    def values(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The tensors of both, with what either mask removes at zero."""
        both = tuple({n: t.detach().clone() for n, t in tensors_of(m).items()} for m in (self.first, self.second))
        if self.masks is not None:
            common = self.masks[0] & self.masks[1]
            for tensors in both:
                for name in common:
                    tensors[name] *= common[name].to(tensors[name].device)
        return both[0], both[1]

    def between(self, alpha: float) -> dict[str, Tensor]:
        """α of the first network and 1 − α of the second; integers, as counts of batches, are the first's."""
        first, second = self.values
        return {name: _mixed(tensor, second[name], alpha) for name, tensor in first.items()}

    @property
    def distance(self) -> float:
        """The Euclidean distance of the parameters."""
        return math.sqrt(self._summed(lambda a, b: (a - b).abs().square().sum()))

    @property
    def angle(self) -> float:
        """The angle between the parameters as vectors, in right angles: 0 is one direction, 1 is orthogonal."""
        product = self._summed(lambda a, b: (a.conj() * b).sum().real)
        sizes = math.sqrt(self._summed(lambda a, _: a.abs().square().sum()))
        sizes *= math.sqrt(self._summed(lambda _, b: b.abs().square().sum()))
        return math.acos(min(max(product / sizes, -1.0), 1.0)) * 2 / math.pi if sizes else math.nan

    def _summed(self, part: Any) -> float:
        first, second = self.values
        wide = {True: torch.complex128, False: torch.float64}
        names = parameters_of(self.first)
        pairs = ((first[n].cpu(), second[n].cpu()) for n in names)
        return sum(float(part(a.to(wide[a.is_complex()]), b.to(wide[b.is_complex()]))) for a, b in pairs)


def barrier(
    task: Task,
    ends: Ends,
    *,
    points: int = POINTS,
    splits: Sequence[Split] = ("test",),
    statistics: Sequence[Statistics] = ("anew", "interpolated"),
) -> list[Line]:
    """Measure a task's metric and loss on the straight line between two networks (Frankle et al., ICML 2020).

    Nothing is trained: each line costs one evaluation a point. Batch norms' statistics are taken anew at each point,
    the ends too, as a cumulative mean over up to 2,000 training samples without augmentation.

    Args:
        task: gives data, forward pass, loss and metric.
        ends: the networks; they stay as they are.
        points: evenly spaced, both ends among them.
        splits: to measure on; "train" is measured without augmentation.
        statistics: treatments of batch norms, each a line of its own; a network without them has one line a split.

    Returns:
        A line for each split and treatment; the first treatment's come first.

    Raises:
        TombolaError: if there are fewer than three points, a split or a treatment does not exist, or a split is empty.

    Examples:
        >>> from tombola.testing import toy_task
        >>> task = toy_task()
        >>> lines = barrier(task, Ends(task.build(0), task.build(1)), points=5)
        >>> [(line.statistics, len(line.metrics)) for line in lines]
        [('anew', 5), ('interpolated', 5)]
    """
    check_lines(points, splits, statistics)
    plain = without_augmentation(task)
    model = copy.deepcopy(ends.first)
    device = next(model.parameters()).device
    norms = any(isinstance(own, BATCH_NORMS) and own.running_mean is not None for own in model.modules())
    sample = first_samples(plain) if norms and "anew" in statistics else []
    lines = []
    for treatment in statistics if norms else ("none",):
        measured: dict[Split, list[tuple[float, float, int]]] = {split: [] for split in splits}
        for point in range(points):
            put_values(model, ends.between(point / (points - 1)))
            with own_randomness(device, 0):
                if treatment == "anew":
                    recalibrate(model, sample, plain.forward)
                for split in splits:
                    measured[split].append(evaluate(plain, model, split, task.recipe))
        for split, values in measured.items():
            metrics, losses, counts = zip(*values, strict=True)
            if not counts[0]:
                raise TombolaError(f"the split '{split}' has no samples to measure a line on; give another split")
            lines.append(Line(split, treatment, metrics, losses, counts[0], measure_of(task, metrics)))
    return lines


def check_lines(points: int, splits: Sequence[str], statistics: Sequence[str]) -> None:
    """Raise TombolaError unless lines can be measured so."""
    if not isinstance(points, int) or points < 3:
        raise TombolaError(f"points is {points}; give a whole number from 3 on, since both ends are among them")
    for given, known, what in (
        (splits, ("train", "validation", "test"), "splits"),
        (statistics, ("anew", "interpolated"), "statistics"),
    ):
        if isinstance(given, str) or not given or not {*given} <= {*known} or len({*given}) < len(given):
            raise TombolaError(f"{what} is {given!r}; give some of {', '.join(known)}, each once, as ({known[-1]!r},)")


def _mixed(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    if not (first.is_floating_point() or first.is_complex()) or alpha == 1:
        return first
    return second if alpha == 0 else alpha * first + (1 - alpha) * second


def apart(first: Mapping[str, Tensor], second: Mapping[str, Tensor], names: Sequence[str]) -> float:
    """The Euclidean distance of some tensors of two networks."""
    pairs = ((first[name].cpu(), second[name].cpu()) for name in names)
    return math.sqrt(sum(float((a - b).abs().double().square().sum()) for a, b in pairs))
