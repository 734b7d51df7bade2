"""How much a network loses with the units of each group alone: accuracy, FLOPs and time at several densities."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.evidence import measure_of
from tombola.scores import Magnitude, Score, as_summed, suited
from tombola.shrinking import SmallSizes, check_can_be_cut, interleaved, smaller
from tombola.structure import (
    HEAD,
    INPUTS,
    ChannelAndHeadUnits,
    Channels,
    CoupledUnits,
    FloorWarning,
    Granularity,
    UnitMap,
    in_mode,
    sizes_of,
)
from tombola.studies.group_cuts import GroupCut, Sensitivity
from tombola.tickets import Mask, TieWarning, tensors_of
from tombola.training import Run, Task, agreed_device, bars, evaluate, first_of, pick, train

DENSITIES = (0.75, 0.5, 0.25)


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

    def chosen(scope: Mapping[str, float]) -> Mask:
        with warnings.catch_warnings():
            for category in (TieWarning, FloorWarning):
                warnings.simplefilter("ignore", category)
            return units.choose(scores, None, scope={**dict.fromkeys(found, 1.0), **scope}, within=None, floor=0)

    def cut(name: str, count: int) -> dict[int, Mask]:
        """The mask of a group that keeps so many units, or the next more that its widths allow, by their number."""
        for more in range(max(1, count), found[name]):
            with contextlib.suppress(TombolaError):
                kept = chosen({name: more / found[name]})
                if all(kept.kept(other) == size for other, size in found.items() if other != name):
                    return {kept.kept(name): units.expand(kept, parameters)}
        return {}

    def calls(network: nn.Module) -> object:
        return task.forward(network, suited(timed, network))

    cuts: list[GroupCut] = []
    whole: list[float] = []
    with run.bars.track("groups", len(found)) as tick, torch.no_grad():
        for name, size in found.items():
            masks: dict[int, Mask] = {}
            for density in sorted(densities, reverse=True):
                masks |= cut(name, round(density * size))
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
        return sizes.of(units.expand(chosen(scope), parameters)).share_of(sizes.whole)["flops"]

    cut_groups = {own.group for own in made}
    return Sensitivity(
        metric,
        usual,
        samples,
        measure_of(task, [metric, *(own.metric for own in made)]),
        made,
        tuple(name for name in found if name not in cut_groups),
        share,
    )


def _layers(units: UnitMap) -> dict[str, tuple[str, ...]]:
    """The layers whose channels, heads or neurons each group takes along."""
    if isinstance(units, ChannelAndHeadUnits):
        layers = {name: (name.removeprefix(HEAD),) for name in sizes_of(units)}
        return layers | _layers(units.channels)
    if isinstance(units, CoupledUnits):
        return {
            family: tuple(name for name in members if not name.endswith(INPUTS))
            for family, members in units.families.members.items()
        }
    return {name: (name,) for name in sizes_of(units)}
