"""Filters inside residual blocks as units: as many as removing blocks would take, for the contrast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.structure.block_granularity import Blocks, BlockUnits, residual_blocks
from tombola.structure.channel_granularity import ChannelUnits, SeparateChannels
from tombola.structure.graph import Probe
from tombola.structure.layers import CONVOLUTIONS, channels
from tombola.structure.units import UnitGroup, Units
from tombola.structure.wiring import INPUTS, Wiring
from tombola.tickets import Mask, Scope, modules_of, select


@dataclass(frozen=True)
class Filters:
    """Filters inside residual blocks, as many as the blocks have that `Blocks` would remove by the same scores.

    A filter can go if it feeds only layers of its own block, so that the residual stream keeps its width. Every layer
    keeps one (Jordao et al., When Layers Play the Lottery, all Tickets Win at Initialization, 2023, table 3).

    Args:
        remove: how many blocks `Blocks` would remove.
        least: blocks that each stage would keep, its first one included.
        reduction: whether a block's score is the sum or the mean of its weights' scores.

    Examples:
        >>> Filters(remove=3).name
        'filter:3'
    """

    remove: int = 1
    least: int = 2
    reduction: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def blocks(self) -> Blocks:
        """The granularity whose removed blocks are counted in filters."""
        return Blocks(self.remove, self.least, self.reduction)

    def check(self, density: float, scope: Scope) -> None:
        """TombolaError for a scope that shares weights, or numbers below 1."""
        self.blocks.check(density, scope)

    @property
    def name(self) -> str:
        """What `granularity` calls it."""
        return f"filter:{self.remove}"

    def units(self, model: nn.Module, probe: Probe) -> FilterUnits:
        """The filters of a network that can go; TombolaError if it has no residual blocks."""
        every, modules = SeparateChannels().units(model, probe), modules_of(model)
        blocks = residual_blocks(model, probe)
        filters: dict[str, int] = {}
        inner: list[UnitGroup] = []
        for block in blocks:
            names = {name for name in modules if name.startswith(f"{block.name}.")}
            convolutions = [name for name in names if isinstance(modules[name], CONVOLUTIONS)]
            filters[block.name] = sum(channels(modules[name]) for name in convolutions)
            inner += [
                group
                for group in every.wiring.groups
                if group.name in convolutions and _feeds_only(group, names, every.wiring)
            ]
        return FilterUnits(self.blocks.among(blocks), every, tuple(inner), filters)


@dataclass(frozen=True, eq=False)
class FilterUnits:
    """The filters of one network that can go.

    Args:
        blocks: the blocks whose filters are counted.
        every: all channels of the network.
        inner: the groups of the filters that can go.
        filters: how many filters each block has.
    """

    blocks: BlockUnits
    every: ChannelUnits
    inner: tuple[UnitGroup, ...]
    filters: Mapping[str, int]

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept filters of each layer, by the scores of weights; arguments as of `tombola.select`.

        Raises:
            TombolaError: if the blocks have more filters than can go.
        """
        reduced = self._units.reduce(scores)
        if density is not None:
            total = sum(group.size for group in self.inner)
            count = self._in_removed_blocks(self.blocks.choose(scores, density, scope="global", within=None, floor=0))
            if count > total - len(self.inner):
                raise TombolaError(
                    f"the blocks that would go have {count} filters, but only {total - len(self.inner)} of {total} "
                    "inside all blocks can go, since each layer keeps one; remove fewer blocks"
                )
            density = (total - count) / total
        return select(reduced, density, scope=scope, within=within, floor=max(1, floor))

    def share(self, density: float) -> float:
        """The share of the removable blocks that would stay; TombolaError if more would go than can."""
        return self.blocks.share(density)

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask:
        """The mask of weights, in which everything that dies with the removed filters is dead."""
        return self.every.expand(kept, parameters)

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]:
        """The removed filters of each layer, by number."""
        return self._units.removed(kept)

    def kept(self, removed: Mapping[str, Sequence[int]]) -> Mask:
        """The kept filters of each layer, from the removed ones; TombolaError if these are another network's."""
        return self._units.kept(removed)

    def _in_removed_blocks(self, kept: Mask) -> int:
        """How many filters the blocks have that are not kept."""
        removed = self.blocks.removed(kept)
        return sum(
            self.filters[blocks[number].name]
            for stage, blocks in self.blocks.stages.items()
            for number in removed[stage]
        )

    @cached_property
    def _units(self) -> Units:
        return Units(self.inner)


def _feeds_only(group: UnitGroup, block: set[str], wiring: Wiring) -> bool:
    """Whether these channels feed layers of their block, and nothing else."""
    fed = wiring.fed_by(group.name)
    return bool(fed) and all(name.removesuffix(INPUTS) in block for name in fed)
