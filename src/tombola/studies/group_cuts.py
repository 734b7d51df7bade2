"""How much a network loses with the units of each group alone: accuracy, FLOPs and time at several densities."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.evidence import Measure
from tombola.scores import Magnitude, Score, as_summed, suited
from tombola.shrinking import SmallSizes, Target, check_can_be_cut, interleaved, smaller
from tombola.structure import INPUTS, Channels, CoupledUnits, FloorWarning, Granularity, UnitMap, in_mode, sizes_of
from tombola.studies.measures import measure_of
from tombola.tickets import Mask, TieWarning, tensors_of
from tombola.training import Run, Task, agreed_device, bars, evaluate, first_of, pick, train

DENSITIES = (0.75, 0.5, 0.25)
STEPS = 20
"""Halvings by which the loss is found that reaches a target."""


@dataclass(frozen=True)
class GroupCut:
    """One group at one density, all others whole.

    Args:
        group: its name.
        layers: whose channels, heads or neurons are cut with it.
        units: how many it has.
        kept: how many of them stay.
        metric: on the validation split, without any training after the cut.
        flops: of a sample, as a share of the whole network's.
        parameters: as a share of the whole network's.
        seconds: of a call of the smaller network.
    """

    group: str
    layers: tuple[str, ...]
    units: int
    kept: int
    metric: float
    flops: float
    parameters: float
    seconds: float

    @property
    def density(self) -> float:
        """The share of its units that stays."""
        return self.kept / self.units


@dataclass(frozen=True, repr=False)
class Sensitivity:
    """What each group of a network's units is worth. Printed, it is a table.

    Args:
        metric: of the whole network on the validation split.
        seconds: of a call of the whole network.
        samples: of a call.
        measure: what the metric is.
        cuts: each group at each density.
    """

    metric: float
    seconds: float
    samples: int
    measure: Measure
    cuts: tuple[GroupCut, ...]
    _share: Callable[[Mapping[str, float]], float] = field(repr=False, compare=False)

    @property
    def groups(self) -> dict[str, list[GroupCut]]:
        """The cuts by group, from the densest on."""
        found: dict[str, list[GroupCut]] = {}
        for own in sorted(self.cuts, key=lambda cut: -cut.kept):
            found.setdefault(own.group, []).append(own)
        return {name: found[name] for name in dict.fromkeys(own.group for own in self.cuts)}

    def loss(self, cut: GroupCut) -> float:
        """How much worse the metric is than the whole network's."""
        return (cut.metric - self.metric) * -self.measure.sign

    def scope(self, *, tolerance: float | None = None, flops: float | None = None) -> dict[str, float]:
        """A density for each group, as `tombola.select` and methods take it as `scope`.

        Each group keeps as little as costs at most the tolerance when it alone is cut, by lines between the densities
        that were measured. No group falls below the lowest of these.

        Args:
            tolerance: how much worse the metric may be for each group, in the metric's unit.
            flops: in place of a tolerance, the share of FLOPs that all cuts together leave at most; of all tolerances
                the smallest that does.

        Raises:
            TombolaError: if neither is given, or both; or the FLOPs cannot be reached.
        """
        if (tolerance is None) == (flops is None):
            raise TombolaError("give a tolerance or flops, as sensitivity.scope(flops=0.5)")
        if tolerance is not None:
            if not tolerance >= 0:
                raise TombolaError(f"the tolerance is {tolerance:g}; give at least 0, as 0.01")
            return self._within(tolerance)
        assert flops is not None
        Target(flops=flops)
        low, high = 0.0, max([0.0, *map(self.loss, self.cuts)])
        least = self._share(self._within(high))
        if least > flops:
            raise TombolaError(
                f"flops={flops:g} cannot be reached: at the lowest densities that were measured "
                f"{math.ceil(1e4 * least) / 1e4:g} of the FLOPs stay; ask for that or more, or measure lower densities"
            )
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._share(self._within(middle)) <= flops else (middle, high)
        return self._within(high)

    def _within(self, tolerance: float) -> dict[str, float]:
        return {
            name: _lowest([(1.0, 0.0), *((c.density, self.loss(c)) for c in cuts)], tolerance, cuts[0].units)
            for name, cuts in self.groups.items()
        }

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        cuts = [asdict(own) | {"density": own.density, "loss": self.loss(own)} for own in self.cuts]
        return {"metric": self.metric, "seconds": self.seconds, "samples": self.samples, "cuts": cuts}

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """The head and the rows of the table: by group and density, points of the metric, FLOPs and time."""
        head = ["group", "layers", "units", "kept", "metric", "change", "FLOPs", "parameters", "a call"]
        rows = [
            [
                own.group,
                str(len(own.layers)),
                f"{own.units:,}",
                f"{own.kept:,} ({own.density:.0%})",
                self.measure.text(own.metric),
                self.measure.signed(own.metric - self.metric),
                f"{own.flops:.1%}",
                f"{own.parameters:.1%}",
                f"{1e3 * own.seconds:.3g} ms",
            ]
            for cuts in self.groups.values()
            for own in cuts
        ]
        return head, rows

    @property
    def whole(self) -> str:
        """What the whole network does, in words."""
        metric = self.measure.text(self.metric)
        return f"whole: {metric} on the validation split, {1e3 * self.seconds:.3g} ms a call of {self.samples} samples"

    def __str__(self) -> str:
        head, rows = self.rows()
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]
        ]
        return "\n".join([*map(str.rstrip, lines), self.whole])

    __repr__ = __str__


def sensitivity(
    task: Task,
    model: nn.Module | None = None,
    *,
    granularity: Granularity = Channels(),
    densities: Sequence[float] = DENSITIES,
    score: Score = Magnitude(),
    samples: int = 16,
    seed: int = 0,
    device: torch.device | str = "auto",
    run: Run | None = None,
) -> Sensitivity:
    """Cut each group of units alone, and measure accuracy on the validation split, FLOPs and time without it.

    A group is what can only be cut together, as the channels of a residual stream, and is cut out in truth: the smaller
    network is measured. It is not trained after the cut.

    Args:
        task: gives the data, the metric and, where no model is given, the network.
        model: the trained network, which stays as it is; None trains the task's.
        granularity: what is cut out.
        densities: the shares of its units that a group keeps, each above 0 and below 1.
        score: which units go first.
        samples: of a call whose time is measured.
        seed: of the training, where no model is given.
        device: where the network is measured.
        run: where the training is kept, on which device, and whether bars are shown.

    Raises:
        TombolaError: if the task has no validation samples, a density is out of range, or no unit can be cut out.

    Examples:
        >>> import tombola as tb
        >>> from tombola.testing import toy_task
        >>> task = toy_task(epochs=1)
        >>> found = tb.sensitivity(task, tb.train(task).model, densities=(0.5,))
        >>> scope = found.scope(flops=0.8)
        >>> scope.keys() == found.groups.keys(), all(0.5 <= density <= 1 for density in scope.values())
        (True, True)
    """
    if run is None:
        with bars() as shown:
            own = Run(seed, device=agreed_device(device, None), bars=shown)
            return sensitivity(
                task,
                model,
                granularity=granularity,
                densities=densities,
                score=score,
                samples=samples,
                run=own,
            )
    check_can_be_cut(granularity)
    for density in densities:
        if not 0 < density < 1:
            raise TombolaError(f"density is {density:g}; give shares of units to keep, above 0 and below 1")
    if not densities:
        raise TombolaError("there is no density to measure; give some, as densities=(0.75, 0.5, 0.25)")
    model = train(task, run=run).model if model is None else model.to(run.device)
    metric, _, count = evaluate(task, model, "validation", task.recipe)
    if not count:
        raise TombolaError(
            "the task has no validation samples to measure by; give some, since the test split must not choose"
        )
    inputs, _ = first_of(task.batches("train", run.seed, 0))
    timed = pick(inputs, slice(samples))
    sizes = SmallSizes(model, pick(inputs, slice(2)), task.forward)
    units = granularity.units(model, sizes.probe)
    found, layers = sizes_of(units), _layers(units)
    score = as_summed(score, granularity, model, sizes.probe)
    scores = run.score(score, task, model)
    parameters = tensors_of(model)

    def mask_of(scope: Mapping[str, float]) -> Mask:
        with warnings.catch_warnings():
            for category in (TieWarning, FloorWarning):
                warnings.simplefilter("ignore", category)
            kept = units.choose(scores, None, scope={**dict.fromkeys(found, 1.0), **scope}, within=None, floor=0)
        return units.expand(kept, parameters)

    def calls(network: nn.Module) -> object:
        return task.forward(network, suited(timed, network))

    cuts: list[GroupCut] = []
    whole: list[float] = []
    with run.bars.track("groups", len(found)) as tick, torch.no_grad():
        for name, size in found.items():
            counts = sorted({max(1, round(density * size)) for density in densities} - {size}, reverse=True)
            masks = {kept: mask_of({name: kept / size}) for kept in counts}
            networks = {kept: smaller(model, mask, sizes.probe)[0].eval() for kept, mask in masks.items()}
            with in_mode(model, "eval"):
                timers = {str(kept): (lambda own=own: calls(own)) for kept, own in networks.items()}
                seconds = interleaved({"whole": lambda: calls(model), **timers})
            whole.append(seconds["whole"])
            for kept, network in networks.items():
                shares = sizes.of(masks[kept]).share_of(sizes.whole)
                own = evaluate(task, network, "validation", task.recipe)[0]
                times = seconds[str(kept)] / seconds["whole"]
                cuts.append(GroupCut(name, layers[name], size, kept, own, shares["flops"], shares["parameters"], times))
            tick(name)
    usual = sorted(whole)[len(whole) // 2] if whole else 0.0
    made = tuple(replace(own, seconds=own.seconds * usual) for own in cuts)

    def share(scope: Mapping[str, float]) -> float:
        return sizes.of(mask_of(scope)).share_of(sizes.whole)["flops"]

    return Sensitivity(metric, usual, samples, measure_of(task, [metric, *(own.metric for own in made)]), made, share)


def _layers(units: UnitMap) -> dict[str, tuple[str, ...]]:
    """The layers whose channels, heads or neurons each group takes along."""
    if isinstance(units, CoupledUnits):
        return {
            family: tuple(name for name in members if not name.endswith(INPUTS))
            for family, members in units.families.members.items()
        }
    return {name: (name,) for name in sizes_of(units)}


def _lowest(points: Sequence[tuple[float, float]], tolerance: float, units: int) -> float:
    """The lowest density at which a group costs at most the tolerance, by lines between points from the densest on."""
    lowest = 1.0
    for (dense, before), (sparse, after) in itertools.pairwise(points):
        if after <= tolerance:
            lowest = sparse
            continue
        lowest = dense - (dense - sparse) * (tolerance - before) / (after - before)
        break
    return max(math.ceil(lowest * units - 1e-9), 1) / units
