"""Residual blocks of a network: those that declare themselves, or those that are found by calling it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from tombola.errors import TombolaError, unknown
from tombola.structure.graph import Probe
from tombola.structure.layers import shared
from tombola.structure.residual_branches import Gives, traced_branches
from tombola.tickets import joined, modules_of, parameters_of, places_of


@dataclass(frozen=True)
class Block:
    """A module that adds a branch to its input.

    stage: the run of blocks that it stands in, called by their parent, or by the first of them where the parent holds
    several. gives: (layer, parameter) of the layers whose outputs are added; none where the input is changed on the way
    past the branch, or layers stand in several places. parameters: all that it owns.
    """

    name: str
    stage: str
    gives: Gives
    parameters: tuple[str, ...]


def residual_blocks(model: nn.Module, probe: Probe | None = None) -> tuple[Block, ...]:
    """The blocks that declare themselves; where none does, those that a call of the network shows, if a probe is given.

    A module declares itself by an attribute `branch`: the names of the layers below it whose outputs are added to its
    input, or none where the input is not passed on as it is. TombolaError for a name that the block does not have, or
    if the network cannot be called.
    """
    found = _declared(model)
    if not found and probe is not None:
        found = traced_branches(model, probe)
    named, stages = modules_of(model), _stages(found)
    return tuple(
        Block(
            name,
            stages[name],
            gives,
            tuple(joined(name, own) for own in parameters_of(named[name])),
        )
        for name, gives in found.items()
    )


def declare_blocks(model: nn.Module, branches: Mapping[str, Iterable[str]]) -> None:
    """Say of modules that they are residual blocks, where they do not say so: the names of the layers that they add.

    branches: by the block's name the names that its layers have in it, as {"layer1.1": ("bn2",)}; () for a block that
    does not pass its input on. Belongs into the function that builds the model. Blocks that are not named are then
    none. TombolaError for a name that does not exist.
    """
    named = modules_of(model)
    plain = {place.path: place.name for place in places_of(model)}
    for name, layers in branches.items():
        module, own = named.get(plain.get(name, name)), tuple(layers)
        if module is None:
            raise unknown("module", name, (other for other, part in named.items() if other and [*part.children()]))
        inner = [layer for layer in modules_of(module) if layer]
        if isinstance(layers, str):
            raise TombolaError(f"what '{name}' adds is named one by one; give ('{layers}',)")
        if lost := [layer for layer in own if layer not in inner]:
            raise unknown(f"layer of '{name}' called", lost[0], inner)
        if not isinstance(getattr(type(module), "branch", getattr(module, "branch", ())), tuple):
            raise TombolaError(f"'{name}' has a `branch` of its own, in whose place this would stand; rename that one")
        module.branch = own  # ty: ignore[invalid-assignment]


def _declared(model: nn.Module) -> dict[str, Gives]:
    elsewhere, found = shared(model), {}
    for name, module in modules_of(model).items():
        branch = getattr(module, "branch", None)
        if not name or not isinstance(branch, tuple):
            continue
        named = {joined(name, own): part for own, part in modules_of(module).items()}
        layers = [joined(name, own) for own in branch]
        if lost := [own for own in layers if own not in named]:
            raise TombolaError(f"'{name}' says that its branch ends in '{lost[0]}', which it does not have")
        gives = tuple((own, part) for own in layers for part in parameters_of(named[own]))
        found[name] = () if elsewhere & named.keys() else gives
    return found


def _stages(blocks: Mapping[str, Gives]) -> dict[str, str]:
    """By block its stage: a run of blocks of one parent, which one that does not pass its input on begins."""
    runs: dict[str, list[list[str]]] = {}
    for name, gives in blocks.items():
        beside = runs.setdefault(name.rpartition(".")[0], [])
        if not beside or not gives:
            beside.append([])
        beside[-1].append(name)
    return {
        name: parent if len(beside) == 1 else run[0]
        for parent, beside in runs.items()
        for run in beside
        for name in run
    }
