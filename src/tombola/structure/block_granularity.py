"""Residual blocks as units: which can go, and how they are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import LATER, check_fields
from tombola.structure.graph import Probe
from tombola.structure.residual_networks import Block, residual_blocks
from tombola.structure.units import check_kept, check_removed, check_scope, numbers_of
from tombola.structure.widths import check_names, check_widths, is_named
from tombola.tickets import Mask, Scope, select


@dataclass(frozen=True)
class Blocks:
    """Residual blocks, each of which passes its input on when its branch is removed (Jordao et al., 2023).

    The first block of a stage always stays. The paper is When Layers Play the Lottery, all Tickets Win at
    Initialization.

    Args:
        remove: how many blocks go; None to keep the share `density` of the blocks that can go.
        least: blocks that each stage keeps, its first one included; where no stage has more, only its first.
        reduction: whether a block's score is the sum or the mean of its weights' scores.
        protect: names of blocks, or patterns, that stay.

    Examples:
        >>> Blocks(remove=3).name
        'block:3'
    """

    remove: int | None = None
    least: int = 2
    reduction: Literal["sum", "mean"] = "sum"
    protect: tuple[str, ...] = field(default=(), repr=False, metadata=LATER)

    def __post_init__(self) -> None:
        check_fields(self)
        check_widths(1, self.protect)

    @property
    def name(self) -> str:
        """What `granularity` calls it."""
        return "block" if self.remove is None else f"block:{self.remove}"

    def check(self, density: float, scope: Scope) -> None:
        """TombolaError for a scope that shares weights, or numbers below 1."""
        check_scope("block", scope)
        if (self.remove is not None and self.remove < 1) or self.least < 1:
            raise TombolaError(f"remove={self.remove} with least={self.least}; give numbers of blocks, at least 1")

    def units(self, model: nn.Module, probe: Probe) -> BlockUnits:
        """The blocks of a network that can go; TombolaError if there are none."""
        check_names(self.protect, model)
        return self.among(residual_blocks(model, probe))

    def among(self, blocks: Sequence[Block]) -> BlockUnits:
        """The ones of a network's blocks that can go; TombolaError if there are none."""
        stages = dict.fromkeys(block.stage for block in blocks)
        first = {stage: next(block for block in blocks if block.stage == stage) for stage in stages}
        free = tuple(block for block in blocks if block.gives and block is not first[block.stage])
        free = tuple(block for block in free if not is_named(block.name, self.protect))
        if not free:
            why = (
                f"each is {'protected or ' if self.protect else ''}the first of its stage"
                if blocks
                else "none gives its input without a branch"
            )
            raise TombolaError(
                f"the network has no residual block that could be removed: {why}; use one with shortcuts, as resnet32 "
                "or vit-tiny, or say what your blocks add: tb.structure.declare_blocks(model, {'layer1.1': ('bn2',)})"
            )
        return BlockUnits(free, {stage: sum(b.stage == stage for b in blocks) for stage in stages}, self)


@dataclass(frozen=True, eq=False)
class BlockUnits:
    """The blocks of one network that can go.

    Args:
        blocks: the blocks that can go, in the network's order.
        sizes: how many blocks each stage has, those included that cannot go.
        own: the granularity, which says how many go and how they are scored.
    """

    blocks: tuple[Block, ...]
    sizes: Mapping[str, int]
    own: Blocks

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept blocks of each stage, by the scores of weights; arguments as of `tombola.select`."""
        reduced = {
            stage: torch.stack([self._score(block, scores) for block in blocks])
            for stage, blocks in self.stages.items()
        }
        floors = {name: self._floor(name, floor) for name in self.stages}
        return select(reduced, density, scope=scope, within=within, floor=floors)

    def share(self, density: float) -> float:
        """The share of the removable blocks that stays; TombolaError if more are to go than can."""
        removed, total = self.own.remove, len(self.blocks)
        if removed is None:
            return density
        most = min(total - 1, total - sum(self._floor(name, 0) for name in self.stages))  # a density is above 0
        if removed > most:
            raise TombolaError(
                f"{removed} blocks cannot go: of {total} that could, {most} can where each stage keeps "
                f"{self.own.least}; remove fewer, or give least=1"
            )
        return (total - removed) / total

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask:
        """The mask of weights in which all parameters of the removed blocks are dead."""
        check_kept(kept, self._free)
        alive = {
            name: torch.full(parameters[name].shape, bool(stays))
            for stage, blocks in self.stages.items()
            for block, stays in zip(blocks, kept[stage] if stage in kept else [True] * len(blocks), strict=True)
            for name in block.parameters
        }
        return Mask.of(alive, kept.ties)

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]:
        """The removed blocks of each stage, by their numbers among those that can go."""
        return {stage: numbers_of(~kept[stage]) for stage in kept}

    def kept(self, removed: Mapping[str, Sequence[int]]) -> Mask:
        """The kept blocks of each stage, from the removed ones; TombolaError if these are another network's."""
        check_removed(removed, self._free)
        alive = {stage: torch.ones(size, dtype=torch.bool) for stage, size in self._free.items()}
        for stage, numbers in removed.items():
            alive[stage][list(numbers)] = False
        return Mask.of(alive)

    @property
    def _free(self) -> dict[str, int]:
        """How many blocks of each stage can go."""
        return {stage: len(blocks) for stage, blocks in self.stages.items()}

    @cached_property
    def stages(self) -> dict[str, list[Block]]:
        """The blocks that can go, by stage."""
        stages: dict[str, list[Block]] = {}
        for block in self.blocks:
            stages.setdefault(block.stage, []).append(block)
        return stages

    def _floor(self, stage: str, floor: int) -> int:
        """How many of a stage's removable blocks stay at least; those that cannot go count towards `least`."""
        removable = len(self.stages[stage])
        return min(removable, max(floor, self._least - (self.sizes[stage] - removable)))

    @cached_property
    def _least(self) -> int:
        """Blocks that each stage keeps: one where no block could go else, as in resnet18."""
        return self.own.least if any(self.sizes[stage] > self.own.least for stage in self.stages) else 1

    def _score(self, block: Block, scores: Mapping[str, Tensor]) -> Tensor:
        if block.name in scores:  # a score of whole blocks
            return scores[block.name].sum()
        weights = [scores[name] for name in block.parameters if name in scores]
        if not weights:
            raise TombolaError(f"no score covers block '{block.name}'; use a score of its weights")
        total = torch.stack([score.sum() for score in weights]).sum()
        return total if self.own.reduction == "sum" else total / sum(score.numel() for score in weights)
