"""Residual blocks of a network: those that declare themselves, or else those that a call of the network shows."""

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

    Args:
        name: the module's name.
        stage: the run of blocks that it stands in, named by their parent, or by the first block of the run where the
            parent holds several runs.
        gives: (layer, parameter) of the layers whose outputs are added; empty if the shortcut changes the input, or if
            layers stand in several places.
        parameters: the names of all its parameters.
    """

    name: str
    stage: str
    gives: Gives
    parameters: tuple[str, ...]


def residual_blocks(model: nn.Module, probe: Probe | None = None) -> tuple[Block, ...]:
    """The residual blocks of a network, in its order.

    A module declares itself a block by an attribute `branch`: a tuple of the names of the layers below it whose outputs
    are added to its input, empty if the shortcut changes the input. Where no module does, a call of the network shows
    its blocks.

    Args:
        model: the network; it stays as it is.
        probe: calls it on an example of its inputs; None to look at declarations only.

    Raises:
        TombolaError: if a declaration names a layer that the block does not have, or the call fails.
    """
    branches = _declared(model)
    if not branches and probe is not None:
        branches = traced_branches(model, probe)
    modules, stages = modules_of(model), _stages(branches)
    return tuple(
        Block(name, stages[name], gives, tuple(joined(name, parameter) for parameter in parameters_of(modules[name])))
        for name, gives in branches.items()
    )


def declare_blocks(model: nn.Module, branches: Mapping[str, Iterable[str]]) -> None:
    """Declare modules of a network to be residual blocks, in the function that builds it.

    Modules that are not named are then no blocks.

    Args:
        model: the network, changed in place.
        branches: by each block's name, the names (in the block) of the layers whose outputs it adds to its input, as
            {"layer1.1": ("bn2",)}; () for a block whose shortcut changes the input.

    Raises:
        TombolaError: for a name that does not exist.

    Examples:
        >>> model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
        >>> declare_blocks(model, {"0": ("1",)})
        >>> residual_blocks(model)[0].gives
        (('0.1', 'weight'), ('0.1', 'bias'))
    """
    modules = modules_of(model)
    plain_names = {place.path: place.name for place in places_of(model)}
    for name, layers in branches.items():
        module, branch = modules.get(plain_names.get(name, name)), tuple(layers)
        if module is None:
            raise unknown("module", name, (other for other, m in modules.items() if other and [*m.children()]))
        inner = [layer for layer in modules_of(module) if layer]
        if isinstance(layers, str):
            raise TombolaError(f"what '{name}' adds is named one by one; give ('{layers}',)")
        if missing := [layer for layer in branch if layer not in inner]:
            raise unknown(f"layer of '{name}' called", missing[0], inner)
        if not isinstance(getattr(type(module), "branch", getattr(module, "branch", ())), tuple):
            raise TombolaError(f"'{name}' has a `branch` of its own, in whose place this would stand; rename that one")
        module.branch = branch  # ty: ignore[invalid-assignment]


def _declared(model: nn.Module) -> dict[str, Gives]:
    """The layers that give the branch of each block that declares itself."""
    elsewhere, branches = shared(model), {}
    for name, module in modules_of(model).items():
        branch = getattr(module, "branch", None)
        if not name or not isinstance(branch, tuple):
            continue
        inner = {joined(name, path): part for path, part in modules_of(module).items()}
        layers = [joined(name, path) for path in branch]
        if missing := [layer for layer in layers if layer not in inner]:
            raise TombolaError(f"'{name}' says that its branch ends in '{missing[0]}', which it does not have")
        gives = tuple((layer, parameter) for layer in layers for parameter in parameters_of(inner[layer]))
        branches[name] = () if elsewhere & inner.keys() else gives
    return branches


def _stages(blocks: Mapping[str, Gives]) -> dict[str, str]:
    """Each block's stage: a run of blocks of one parent; a block that does not pass its input on begins a new run."""
    runs_of: dict[str, list[list[str]]] = {}
    for name, gives in blocks.items():
        runs = runs_of.setdefault(name.rpartition(".")[0], [])
        if not runs or not gives:
            runs.append([])
        runs[-1].append(name)
    return {
        name: parent if len(runs) == 1 else run[0] for parent, runs in runs_of.items() for run in runs for name in run
    }
