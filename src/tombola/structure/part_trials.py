"""Proves on an example that units can be cut: a module with zeros in their places gives what one without them gives."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tombola.nested import mapped
from tombola.structure.graph import Probe
from tombola.structure.layers import BATCH_NORMS
from tombola.structure.narrowing import narrow_parts
from tombola.structure.outputs import outputs_in
from tombola.structure.placed_parts import PlacedPart
from tombola.structure.random_state import own_random_state
from tombola.tickets import bare, buffers_of, copied, device_of, modules_of, names_of, parameters_of, recomputable

TOLERANCE = 1e-9
Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Verdict:
    """What a trial showed.

    Args:
        reason: why the units cannot be cut; empty if they can.
        leaks: whether something beside the module's first tensor is another one after the cut.
    """

    reason: str = ""
    leaks: bool = False


@dataclass(eq=False)
class Trials:
    """The modules of a copy of a network, and what each was called with first.

    Args:
        modules: the modules by name.
        calls: the arguments of the first of its like that was called; modules of one class whose parameters have the
            same shapes are alike.
        order: when each module was called first.
    """

    modules: dict[str, nn.Module]
    calls: dict[Hashable, Call]
    order: dict[str, int]
    _verdicts: dict[Any, Verdict] = field(default_factory=dict)

    def owner(self, names: Iterable[str]) -> str:
        """The innermost module that was called and holds all these; the network, if none."""
        levels = zip(*(name.split(".") for name in names), strict=False)
        shared = ".".join(level[0] for level in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
        while shared and shared not in self.order:
            shared = shared.rpartition(".")[0]
        return shared

    def owned(self, part: PlacedPart) -> PlacedPart:
        """A part with the innermost module that was called and holds all its tensors."""
        return replace(part, owner=self.owner({part.owner, *(place.tensor for place in part.places)}))

    def of(self, part: PlacedPart) -> Verdict:
        """Whether the units of a part can be cut; parts of like modules are tried once."""
        key = (_likeness(self.modules[part.owner]), _inside(part))
        if key not in self._verdicts:
            self._verdicts[key] = self._tried(part)
        return self._verdicts[key]

    def beyond(self, part: PlacedPart) -> Verdict:
        """The verdict on a part in the innermost module around it from which nothing leaks, up to the network."""
        while True:
            verdict = self.of(part)
            if verdict.reason or not verdict.leaks or not part.owner:
                return Verdict(verdict.reason or "the network's outputs would be others" * verdict.leaks)
            outer = part.owner.rpartition(".")[0]
            part = replace(part, owner=self.owner([outer]) if outer else "")

    def _tried(self, part: PlacedPart) -> Verdict:
        inner, call = _inside(part), self.calls.get(_likeness(self.modules[part.owner]))
        if call is None:
            return Verdict("the example does not reach them")
        verdict = Verdict("no trial")
        # Random numbers first, since zeros in a network may hide a wrong cut; its own where it fails with those.
        for random, double in ((True, True), (True, False), (False, True)):
            module = copied(self.modules[part.owner])
            given = _doubled(call) if double else call
            module = module.double() if double else module
            with own_random_state(device_of(module), 0), torch.no_grad():
                if random:
                    randomise(module)
                try:
                    _run(copied(module), given)
                except Exception:
                    continue  # the module does not work with these numbers, cut or not
            verdict = _compared(module, inner, given, TOLERANCE if double else 1e-4)
            if verdict is not None:
                return verdict
        return verdict or Verdict("the module gives no numbers")


def trials(model: nn.Module, probe: Probe) -> Trials | None:
    """Call a copy of a network and remember what its modules were called with; None if it cannot be called.

    Args:
        model: the network; it stays as it is.
        probe: calls it on an example of its inputs.
    """
    try:
        twin = bare(copied(model)).eval()
    except Exception:
        return None
    names = names_of(twin)
    calls: dict[Hashable, Call] = {}
    likeness = {module: _likeness(module) for module in twin.modules()}
    order: dict[str, int] = {}

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        order.setdefault(names[module], len(order))
        # Stacked experts hold parameters of their own and no modules.
        holds = any(True for _ in module.children()) or any(p.ndim == 3 for p in module.parameters(recurse=False))
        if likeness[module] not in calls and holds:
            with contextlib.suppress(Exception):  # what cannot be copied cannot be tried
                calls[likeness[module]] = copy.deepcopy((args, kwargs))

    handles = [module.register_forward_pre_hook(enter, with_kwargs=True) for module in twin.modules()]
    try:
        with own_random_state(device_of(twin), 0), torch.no_grad(), recomputable():
            probe(twin)
    except Exception:
        return None
    finally:
        for handle in handles:
            handle.remove()
    return Trials(modules_of(twin), calls, order) if order else None


def randomise(module: nn.Module) -> None:
    """Put random parameters into a network, and random means into its batch norms."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.normal_(0, max(1, math.prod(parameter.shape[1:])) ** -0.5)
    for inner in module.modules():
        if isinstance(inner, BATCH_NORMS) and inner.running_mean is not None:
            inner.reset_running_stats()
            inner.running_mean.normal_()


def _compared(module: nn.Module, part: PlacedPart, call: Call, tolerance: float) -> Verdict | None:
    """Zeros beside a cut; None if the module with zeros gives what cannot be compared."""
    gone = (part.size // 2,)
    zeroed = copied(module)
    tensors = _tensors(zeroed)
    for (name, dim), positions in part.removed(gone).items():
        with torch.no_grad():
            tensors[name].index_fill_(dim, torch.tensor(sorted(positions), device=tensors[name].device), 0)
    try:
        expected = _run(zeroed, call)
    except Exception:
        return None
    if not expected or not expected[0].isfinite().all():
        return None
    try:
        small = copied(module)
        narrow_parts(small, [(part, gone)])
        outputs = _run(small, call)
    except Exception as error:
        return Verdict(f"with fewer its code fails: {type(error).__name__}: {str(error).splitlines()[0]}"[:200])
    if len(outputs) != len(expected) or outputs[0].shape != expected[0].shape:
        return Verdict("with fewer its outputs have another shape")
    if not _close(outputs[0], expected[0], tolerance):
        return Verdict("with fewer it computes something else")
    # Others may be what nobody needs, as the mean of all heads' attention.
    others = zip(outputs[1:], expected[1:], strict=True)
    return Verdict("", any(own.shape != other.shape or not _close(own, other, tolerance) for own, other in others))


def _close(own: Tensor, other: Tensor, tolerance: float) -> bool:
    if not own.is_floating_point():
        return torch.equal(own, other)
    scale = other[other.isfinite()].abs().max() if other.isfinite().any() else torch.tensor(1.0)
    return torch.allclose(own, other, rtol=0, atol=float(scale) * tolerance, equal_nan=True)


def _run(module: nn.Module, call: Call) -> list[Tensor]:
    with own_random_state(device_of(module), 0), torch.no_grad(), recomputable():
        args, kwargs = copy.deepcopy(call)
        module.eval()  # of which LeViT's gives nothing
        return outputs_in(module(*args, **kwargs))


def _doubled(call: Call) -> Call:
    def doubled(tensor: Tensor) -> Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    args, kwargs = copy.deepcopy(call)
    return mapped(args, doubled), mapped(kwargs, doubled)


def _inside(part: PlacedPart) -> PlacedPart:
    """A part with the names that it has in its owner; without fields of a configuration outside it."""
    cut = len(part.owner) + 1 if part.owner else 0
    places = tuple(replace(place, tensor=place.tensor[cut:]) for place in part.places)
    counts = tuple(
        replace(count, module=count.module[cut:])
        for count in part.counts
        if f"{count.module}.".startswith(f"{part.owner}." if part.owner else "")
    )
    freed = tuple(name[cut:] for name in part.freed)
    layers = tuple(name[cut:] for name in part.layers)
    return replace(part, name=part.name[cut:], places=places, counts=counts, freed=freed, owner="", layers=layers)


def _likeness(module: nn.Module) -> Hashable:
    return type(module), tuple((name, tuple(own.shape)) for name, own in module.named_parameters())


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**parameters_of(module), **buffers_of(module)}
