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
from tombola.structure.channel_granularity import Channels, ChannelUnits
from tombola.structure.graph import Probe
from tombola.structure.layers import CONVOLUTIONS, channels
from tombola.structure.units import UnitGroup, Units
from tombola.structure.wiring import INPUTS, Wiring
from tombola.tickets import Mask, Scope, modules_of, select


@dataclass(frozen=True)
class Filters:
    """As many filters as those blocks have that `Blocks` would remove by the same scores, from inside any blocks.

    A filter can go if it feeds layers of its own block alone, so that the residual stream stays as wide as it is; every
    layer keeps one (Jordao et al., When Layers Play the Lottery, all Tickets Win at Initialization, table 3).
    """

    remove: int = 1
    least: int = 2
    reduction: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def blocks(self) -> Blocks:
        """The blocks for which filters go."""
        return Blocks(self.remove, self.least, self.reduction)

    def check(self, density: float, scope: Scope) -> None:
        self.blocks.check(density, scope)

    @property
    def name(self) -> str:
        return f"filter:{self.remove}"

    def units(self, model: nn.Module, probe: Probe) -> FilterUnits:
        every, named = Channels().units(model, probe), modules_of(model)
        blocks = residual_blocks(model, probe)
        filters: dict[str, int] = {}
        inner: list[UnitGroup] = []
        for block in blocks:
            own = {name for name, module in named.items() if name.startswith(f"{block.name}.")}
            convolutions = [name for name in own if isinstance(named[name], CONVOLUTIONS)]
            filters[block.name] = sum(channels(named[name]) for name in convolutions)
            inner += [g for g in every.wiring.groups if g.name in convolutions and _stays(g, own, every.wiring)]
        return FilterUnits(self.blocks.among(blocks), every, tuple(inner), filters)


@dataclass(frozen=True, eq=False)
class FilterUnits:
    """Filters of one network that can go; blocks: the blocks for which they do; filters: how many each block has."""

    blocks: BlockUnits
    every: ChannelUnits
    inner: tuple[UnitGroup, ...]
    filters: Mapping[str, int]

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept filters, by layer; TombolaError if fewer can go than the blocks have."""
        reduced = self._units.reduce(scores)
        if density is not None:
            total = sum(group.size for group in self.inner)
            going = self._in_blocks(self.blocks.choose(scores, density, scope="global", within=None, floor=0))
            if going > total - len(self.inner):
                raise TombolaError(
                    f"the blocks that would go have {going} filters, and inside all blocks there are {total}, of which "
                    "each layer keeps one; remove fewer"
                )
            density = (total - going) / total
        return select(reduced, density, scope=scope, within=within, floor=max(1, floor))

    def share(self, density: float) -> float:
        """The share of the blocks that would stay; TombolaError if more would go than can."""
        return self.blocks.share(density)

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask:
        return self.every.expand(kept, parameters)

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]:
        return self._units.removed(kept)

    def kept(self, removed: Mapping[str, Sequence[int]]) -> Mask:
        return self._units.kept(removed)

    def _in_blocks(self, kept: Mask) -> int:
        """How many filters the blocks have that are not kept."""
        gone = self.blocks.removed(kept)
        return sum(
            self.filters[own[number].name] for stage, own in self.blocks.stages.items() for number in gone[stage]
        )

    @cached_property
    def _units(self) -> Units:
        return Units(self.inner)


def _stays(group: UnitGroup, block: set[str], wiring: Wiring) -> bool:
    """Whether what these channels give goes to layers of their block alone."""
    fed = wiring.fed_by(group.name)
    return bool(fed) and all(name.removesuffix(INPUTS) in block for name in fed)
