"""What stands in the place of a residual block that was cut out: it gives back what the block was given."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tombola.structure.graph import Probe
from tombola.structure.random_state import own_random_state
from tombola.tickets import Mask, bare, copied, device_of, modules_of, recomputable, zero_dead


@dataclass(frozen=True)
class Passing:
    """Which of its arguments a block gives back.

    Args:
        names: the names of the arguments, in their order.
        returns: the name of the argument that it gives back; or, where it gives a tuple, for each element the name of
            its argument, or None.
    """

    names: tuple[str, ...]
    returns: str | tuple[str | None, ...]


class PassThrough(nn.Module):
    """A module that gives back some of its arguments and takes any others.

    Examples:
        >>> PassThrough(Passing(("hidden", "mask"), ("hidden", None)))(torch.ones(1), mask=None)
        (tensor([1.]), None)
    """

    def __init__(self, passing: Passing) -> None:
        super().__init__()
        self.passing = passing

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Give back what the block gave back."""
        given = dict(zip(self.passing.names, args, strict=False)) | kwargs
        returns = self.passing.returns
        if isinstance(returns, str):
            return given[returns]
        return tuple(None if name is None else given.get(name) for name in returns)


def pass_through(block: nn.Module, passing: Passing | None) -> nn.Module:
    """What stands in the place of a block: an identity, or what takes and gives back more than one tensor.

    It keeps the block's simple attributes, by which a network may choose what to call it with.
    """
    if passing is None:
        return nn.Identity()
    module = PassThrough(passing)
    simple = {"attention_type": _attention_type(block), **vars(block)}
    for name, value in simple.items():
        if not name.startswith("_") and name not in ("training", "passing") and isinstance(value, str | int | float):
            setattr(module, name, value)
    return module.train(block.training)


def passings(model: nn.Module, mask: Mask, probe: Probe, names: Collection[str]) -> dict[str, Passing]:
    """How blocks are called that give back an argument: those that take or give more than one tensor.

    Args:
        model: the network; it stays as it is.
        mask: the mask, which leaves these blocks no branch.
        probe: calls it on an example of its inputs.
        names: the blocks' names.
    """
    if not names:
        return {}
    twin, found = bare(copied(model)).eval(), dict[str, Passing]()
    zero_dead(twin, mask)
    modules = modules_of(twin)

    def watch(name: str) -> Any:
        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if len(args) == 1 and not kwargs and isinstance(output, Tensor):
                return
            parameters = inspect.signature(module.forward).parameters.values()
            named = tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))
            named += tuple(f"argument {place}" for place in range(len(named), len(args)))
            given = dict(zip(named, args, strict=False)) | kwargs
            returns = tuple(_name_of(value, given) for value in output) if isinstance(output, tuple) else None
            found[name] = Passing(named, _name_of(output, given) or named[0] if returns is None else returns)

        return leave

    for name in names:
        modules[name].register_forward_hook(watch(name), with_kwargs=True)
    with own_random_state(device_of(twin)), torch.no_grad(), recomputable():
        probe(twin)
    return found


def _name_of(value: Any, given: dict[str, Any]) -> str | None:
    """The name of the argument that a value is, or at least equals."""
    for same in (lambda own: own is value, lambda own: own.shape == value.shape and torch.equal(own, value)):
        for name, own in given.items():
            if isinstance(own, Tensor) and isinstance(value, Tensor) and same(own):
                return name
    return None


def _attention_type(block: nn.Module) -> str | None:
    """Whether a block attends to all or to near places, where its network has blocks of both kinds."""
    own = (vars(part).get(name) for part in block.modules() for name in ("attention_type", "layer_type"))
    return next((kind for kind in own if isinstance(kind, str)), None)


def renumber_caches(model: nn.Module, idle: Collection[str]) -> None:
    """Mend the numbers by which the remaining blocks of a stack find their part of a cache, in place.

    A cache has a part for each block, and takes the length of what it holds from its first one. So the remaining blocks
    take the first parts, each among those of its own kind of attention.

    Args:
        model: the network, whose idle blocks are cut out.
        idle: their names.
    """
    modules = modules_of(model)
    for stack in dict.fromkeys(name.rpartition(".")[0] for name in idle):
        parts = modules.get(stack)
        if not isinstance(parts, nn.ModuleList):
            continue
        kinds = [_attention_type(block) for block in parts]
        free = {kind: [place for place, own in enumerate(kinds) if own == kind] for kind in kinds}
        for place, block in enumerate(parts):
            if isinstance(block, PassThrough):
                continue
            new = free[kinds[place]].pop(0)
            parts_of_block: list[Any] = list(block.modules())
            for part in parts_of_block:
                if type(vars(part).get("layer_idx")) is int and part.layer_idx == place:
                    part.layer_idx = new
