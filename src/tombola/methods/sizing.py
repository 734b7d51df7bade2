"""A method at the density that reaches a target, as half of the FLOPs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, runtime_checkable

from torch import nn

from tombola.errors import TombolaError
from tombola.methods.method_names import blocks_removed, label_of, removing
from tombola.methods.one_shot import OneShot
from tombola.methods.protocol import Method
from tombola.nested import samples_in
from tombola.scores import BlockScore, Magnitude, Scores, as_summed, suited
from tombola.shrinking import SmallSizes, Target, check_takes_target, reach
from tombola.structure import (
    OF_PARTS,
    Blocks,
    BlockUnits,
    FloorWarning,
    Probe,
    Prunable,
    UnitMap,
    Weights,
    check_names,
    kept_share,
    sizes_of,
    with_widths,
)
from tombola.tickets import Mask, Ticket, TieWarning, digest_of, parameters_of, tensors_of
from tombola.training import Run, Task, first_of, pick

COUNTED_ON = 2
"""Samples of the batch on which FLOPs are counted."""


@runtime_checkable
class Rehearsing(Protocol):
    """A method that can say which mask it would draw of a network as it is now."""

    def rehearse(self, model: nn.Module, units: UnitMap, probe: Probe) -> Mask: ...


@dataclass(frozen=True)
class Sized:
    """A method at the density that reaches a target.

    Args:
        method: with this density; its scope is layerwise where its scores are only known once it has searched, so that
            the widths are those that were counted.
        asked: the target, by name.
        counted: FLOPs and parameters of what remains, as shares of the whole network's.
        measured: seconds of a call of the whole and of the smaller network, where a clock decides.
    """

    method: Method
    asked: Mapping[str, float]
    counted: Mapping[str, float]
    measured: Mapping[str, float] = field(default_factory=dict)

    @property
    def density(self) -> float:
        """What was solved for, and says what a run is."""
        return self.method.density

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        removed = blocks_removed(self.method)
        solved = {"density": self.density} if removed is None else {"remove": removed}
        told: dict[str, Any] = {"asked": dict(self.asked), **solved, "scope": str(getattr(self.method, "scope", ""))}
        told |= {"floor": self.method.floor} if hasattr(self.method, "floor") else {}
        return told | {"counted": dict(self.counted), "measured": dict(self.measured)}

    @staticmethod
    def again(method: Method, told: Mapping[str, Any]) -> Sized:
        """What `to_json` told, for the method that was solved for: so that no clock decides twice what a run is."""
        scope = {"scope": told["scope"]} if told["scope"] == "layerwise" else {}
        scope |= {"floor": told["floor"]} if "floor" in told else {}
        if "remove" in told:
            method = removing(method, told["remove"])
        else:
            method = replace(method, density=told["density"], **scope)  # ty: ignore[invalid-argument-type]
        return Sized(method, told["asked"], told["counted"], told["measured"])

    @property
    def said(self) -> str:
        """What was asked, solved for, counted and measured, in words."""
        asked = ", ".join(f"{name}={value:g}" for name, value in self.asked.items())
        removed = blocks_removed(self.method)
        solved = f"density {self.density:.4g}" if removed is None else f"{removed} blocks fewer"
        counted = (
            f"{self.counted['flops']:.1%} of the FLOPs and {self.counted['parameters']:.1%} of the parameters stay"
        )
        measured = ""
        if self.measured:
            gain = self.measured["whole"] / self.measured["small"]
            measured = f", {gain:.2f} times as fast ({1e3 * self.measured['small']:.3g} ms a call)"
        return f"{asked}: {solved}; counted, {counted}{measured}"

    def __str__(self) -> str:
        return f"{label_of(self.method)} to {self.said}"


def fitted(method: Method, round_to: int = 1, protect: tuple[str, ...] = ()) -> Method:
    """The method whose units keep widths that are multiples of a number, and remove nothing of some layers.

    Args:
        method: the method.
        round_to: what widths are multiples of.
        protect: names of layers, or patterns.

    Raises:
        TombolaError: if its units have no widths, or it has no rule for what it may prune.

    Examples:
        >>> fitted(OneShot(), protect=("fc",)).prunable.exclude
        ('fc', 'fc.*')
    """
    protect = (protect,) if isinstance(protect, str) else tuple(protect)
    rule, is_set = getattr(method, "prunable", None), "granularity" in {own.name for own in fields(method)}  # ty: ignore
    if protect and isinstance(method.granularity, Weights) and isinstance(rule, Prunable):
        patterns = tuple(pattern for own in protect for pattern in (own, f"{own}.*"))
        method = replace(method, prunable=replace(rule, exclude=(*rule.exclude, *patterns)))  # ty: ignore
        protect = ()
    if round_to == 1 and not protect:
        return method
    if not is_set:
        raise TombolaError(
            f"'{label_of(method)}' takes no round_to and protect, since it chooses by a rule of its own; give another "
            "method"
        )
    granularity = with_widths(method.granularity, round_to, protect)
    return replace(method, granularity=granularity)  # ty: ignore[invalid-argument-type]


def shaped_as(task: Task, method: Method, targets: Mapping[str, Any]) -> Method:
    """The method with the `round_to` and `protect` of some keyword arguments; TombolaError if these name no layer."""
    protect = targets.get("protect", ())
    if protect:
        check_names((protect,) if isinstance(protect, str) else protect, task.build(0))
    return fitted(method, targets.get("round_to", 1), protect)


def sized(task: Task, method: Method, target: Target, *, run: Run | None = None, seeds: int = 1) -> Sized:
    """The method at the largest density whose smaller network reaches a target on a task's network.

    The FLOPs and parameters are counted of what `tombola.shrink` would leave. Where the method scores the network that
    it begins with, its own choice is counted. Where its scores are only known once it has searched, layers share the
    density evenly (`scope="layerwise"`), which decides the widths whatever the scores come to.

    Args:
        task: gives the network, and a batch to call it on.
        method: whose density does not matter.
        target: what is asked for.
        run: the seed of the network, and the device where a clock measures it.
        seeds: how many seeds it will be searched with; with more, scores of one network say nothing of another.

    Raises:
        TombolaError: if no density reaches the target; it says which comes nearest. If the method asks for no density.

    Examples:
        >>> import tombola as tb
        >>> from tombola.testing import toy_task
        >>> found = sized(toy_task(), tb.OneShot(granularity=tb.Channels()), Target(flops=0.5))
        >>> found.counted["flops"] <= 0.5, found.method.density < 1
        (True, True)
    """
    if not target.asked:
        raise TombolaError("there is no target; give one, as flops=0.5, parameters=, speedup= or latency=")
    if method.density_kind == "outcome":
        raise TombolaError(
            f"'{label_of(method)}' finds how many units stay, and cannot be given a target; give another"
        )
    run = run or Run()
    model = task.build(run.seed)
    if isinstance(method.granularity, Weights):
        return _weights(method, target, model)
    check_takes_target(method.granularity)
    inputs, _ = first_of(task.batches("train", run.seed, 0))
    target = replace(target, samples=min(target.samples, samples_in(inputs) or target.samples))
    model.to(run.device)
    sizes = SmallSizes(model, pick(inputs, slice(COUNTED_ON)), task.forward)
    with run.bars.track("target", 1) as tick, warnings.catch_warnings():
        for category in (TieWarning, FloorWarning):  # of choices that are only counted
            warnings.simplefilter("ignore", category)
        tick(str(target), 0)
        method = _settled(method, task, seeds)
        units = run.units(method.granularity, task, model)
        count, at = _amounts(method, units)
        timed = pick(inputs, slice(target.samples))

        def calls(network: nn.Module) -> object:
            return task.forward(network, suited(timed, network))

        mask_of = _choice(method, task, model, units, run)
        found = reach(target, lambda density: mask_of(at(density)), count, sizes, model, calls)
        tick(str(target))
    return Sized(at(found.density), target.asked, found.counted, found.measured)


def _settled(method: Method, task: Task, seeds: int) -> Method:
    """The method with widths that its density decides, whatever scores it comes to."""
    known = isinstance(method, OneShot) and not method.after and method.rounds == 1
    known &= seeds == 1 or digest_of(tensors_of(task.build(0))) == digest_of(tensors_of(task.build(1)))
    by_score = getattr(method, "scope", "") == "global" and not isinstance(method.granularity, Blocks)
    changed: dict[str, Any] = {} if known or not by_score else {"scope": "layerwise"}
    if isinstance(method.granularity, OF_PARTS) and getattr(method, "floor", 1) == 0:
        changed["floor"] = 1  # else the fewest units that a density can ask for leave some part none
    return replace(method, **changed) if changed else method  # ty: ignore[invalid-argument-type]


def _amounts(method: Method, units: UnitMap) -> tuple[int, Callable[[float], Method]]:
    """How many units there are, and the method that keeps a share of them."""
    if isinstance(units, BlockUnits):
        total = len(units.blocks)
        if blocks_removed(method) is not None:
            return total - 1, lambda share: removing(method, total - round(share * (total - 1)))
        return total, lambda share: replace(method, density=share)  # ty: ignore[invalid-argument-type]
    return sum(sizes_of(units).values()), lambda share: replace(method, density=share)  # ty: ignore


def _choice(method: Method, task: Task, model: nn.Module, units: UnitMap, run: Run) -> Callable[[Method], Mask]:
    """What gives the mask that the method at a density would draw of the network as it is."""
    if isinstance(method, Rehearsing):
        probe = run.probe(task)
        return lambda at_density: at_density.rehearse(model, units, probe)  # ty: ignore[missing-attribute]
    scores = _scores(method, task, model, run)
    parameters = parameters_of(model)

    def choose(at_density: Method) -> Mask:
        scope, floor = getattr(method, "scope", "layerwise"), getattr(method, "floor", 0)
        share = kept_share(units, at_density.density if blocks_removed(at_density) is None else 1.0)
        if isinstance(units, BlockUnits):
            share = replace(units, own=at_density.granularity).share(at_density.density)
        return units.expand(units.choose(scores, share, scope=scope, within=None, floor=floor), parameters)

    return choose


def _scores(method: Method, task: Task, model: nn.Module, run: Run) -> Scores:
    """The scores by which the method chooses, if it scores the network that it begins with; else magnitudes."""
    rule = getattr(method, "prunable", Prunable())
    if isinstance(method, OneShot):
        score = as_summed(method.score, method.granularity, model, run.probe(task))
        return run.score(score, task, model, prunable=rule)
    score = getattr(method, "score", None) if isinstance(method.granularity, Blocks) else None
    if isinstance(score, BlockScore):  # that of a network as it begins, since what it comes to is not known
        return run.score(score, task, model, prunable=rule)
    return Magnitude()(model, prunable=rule)


def _weights(method: Method, target: Target, model: nn.Module) -> Sized:
    """The method of single weights whose kept weights, with all that cannot be pruned, are so many parameters."""
    if target.asked.keys() != {"parameters"}:
        raise TombolaError(
            f"'{label_of(method)}' removes single weights, and a network computes with their zeros; give parameters= "
            "alone, or units that can be cut out, as granularity=tb.Channels() (--granularity channel)"
        )
    assert target.parameters is not None
    every = sum(parameter.numel() for parameter in parameters_of(model).values())
    rule = getattr(method, "prunable", Prunable())
    free = sum(parameter.numel() for parameter in rule(model).values())
    most = math.floor(target.parameters * every if target.parameters <= 1 else target.parameters)
    kept = min(most - (every - free), free)
    if kept < 1:
        raise TombolaError(
            f"{target} cannot be reached: {every - free:,} of {every:,} parameters cannot be pruned; ask for more than "
            f"parameters={(every - free) / every:.4g}"
        )
    at_density = replace(method, density=kept / free)  # ty: ignore[invalid-argument-type]
    return Sized(at_density, target.asked, {"flops": 1.0, "parameters": (every - free + kept) / every})


def counted(task: Task, ticket: Ticket, run: Run) -> dict[str, float]:
    """FLOPs and parameters that a ticket leaves after `tombola.shrink`, as shares of the whole network's.

    Args:
        task: gives the network, and a batch to call it on.
        ticket: the ticket.
        run: the seed of the network.
    """
    model = task.build(run.seed)
    if not ticket.removed:
        return {"flops": 1.0, "parameters": ticket.mask.density_of(parameters_of(model))}
    inputs, _ = first_of(task.batches("train", run.seed, 0))
    sizes = SmallSizes(model, pick(inputs, slice(COUNTED_ON)), task.forward)
    return sizes.of(ticket.mask).share_of(sizes.whole)
