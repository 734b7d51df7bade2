"""Residual blocks as units: which can go, and how they are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.structure.graph import Probe
from tombola.structure.residual_networks import Block, residual_blocks
from tombola.structure.units import check_scope, numbers_of
from tombola.tickets import Mask, Scope, select


@dataclass(frozen=True)
class Blocks:
    """Residual blocks that give what they are given without their branch; a stage's first stays.

    remove: how many go; if None, the density is the share of those that can go which stays. least: blocks that each
    stage keeps, its first among them. reduction: how the scores of a block's weights become the block's (Jordao et al.,
    When Layers Play the Lottery, all Tickets Win at Initialization).
    """

    remove: int | None = None
    least: int = 2
    reduction: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def name(self) -> str:
        return "block" if self.remove is None else f"block:{self.remove}"

    def check(self, density: float, scope: Scope) -> None:
        check_scope("block", scope)
        if (self.remove is not None and self.remove < 1) or self.least < 1:
            raise TombolaError(f"remove={self.remove} with least={self.least}; give numbers of blocks, at least 1")

    def units(self, model: nn.Module, probe: Probe) -> BlockUnits:
        return self.among(residual_blocks(model, probe))

    def among(self, blocks: Sequence[Block]) -> BlockUnits:
        """Those of a network's blocks that can go; TombolaError if there are none."""
        stages = dict.fromkeys(block.stage for block in blocks)
        first = {stage: next(block for block in blocks if block.stage == stage) for stage in stages}
        free = tuple(block for block in blocks if block.gives and block is not first[block.stage])
        if not free:
            why = "each is the first of its stage" if blocks else "none gives its input without a branch"
            raise TombolaError(
                f"the network has no residual block that could be removed: {why}; use one with shortcuts, as resnet32 "
                "or vit-tiny, or say what your blocks add: tb.structure.declare_blocks(model, {'layer1.1': ('bn2',)})"
            )
        return BlockUnits(free, {stage: sum(b.stage == stage for b in blocks) for stage in stages}, self)


@dataclass(frozen=True, eq=False)
class BlockUnits:
    """The blocks of one network that can go, by stage; sizes: how many blocks each stage has in all."""

    blocks: tuple[Block, ...]
    sizes: Mapping[str, int]
    own: Blocks

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept blocks of each stage."""
        reduced = {
            stage: torch.stack([self._worth(block, scores) for block in own]) for stage, own in self.stages.items()
        }
        floors = {name: self._floor(name, floor) for name in self.stages}
        return select(reduced, density, scope=scope, within=within, floor=floors)

    def share(self, density: float) -> float:
        """The share of the blocks that stays; TombolaError if more are to go than can."""
        going, total = self.own.remove, len(self.blocks)
        if going is None:
            return density
        can = min(total - 1, total - sum(self._floor(name, 0) for name in self.stages))
        if going > can:
            raise TombolaError(
                f"{going} blocks cannot go: of {total} that could, {can} can where each stage keeps "
                f"{self.own.least}; remove fewer, or give least=1"
            )
        return (total - going) / total

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask:
        """The mask: all that a removed block owns is dead."""
        alive = {
            name: torch.full(parameters[name].shape, bool(stays))
            for stage, own in self.stages.items()
            for block, stays in zip(own, kept[stage], strict=True)
            for name in block.parameters
        }
        return Mask.of(alive, kept.ties)

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]:
        return {stage: numbers_of(~kept[stage]) for stage in kept}

    def kept(self, removed: Mapping[str, Sequence[int]]) -> Mask:
        """The kept blocks, by stage; TombolaError if the removed ones are another network's."""
        alive = {stage: torch.ones(len(own), dtype=torch.bool) for stage, own in self.stages.items()}
        for stage, numbers in removed.items():
            if stage not in alive or max(numbers, default=-1) >= len(alive[stage]):
                raise TombolaError(
                    f"the ticket removes block {max(numbers, default=0)} of '{stage}', which has "
                    f"{len(alive.get(stage, ()))} that can go here; use the network that it was found on"
                )
            alive[stage][list(numbers)] = False
        return Mask.of(alive)

    @cached_property
    def stages(self) -> dict[str, list[Block]]:
        stages: dict[str, list[Block]] = {}
        for block in self.blocks:
            stages.setdefault(block.stage, []).append(block)
        return stages

    def _floor(self, stage: str, floor: int) -> int:
        own = len(self.stages[stage])
        return min(own, max(floor, self.own.least - (self.sizes[stage] - own)))

    def _worth(self, block: Block, scores: Mapping[str, Tensor]) -> Tensor:
        if block.name in scores:
            return scores[block.name].sum()
        own = [scores[name] for name in block.parameters if name in scores]
        if not own:
            raise TombolaError(f"no score covers block '{block.name}'; use a score of its weights")
        total = torch.stack([score.sum() for score in own]).sum()
        return total if self.own.reduction == "sum" else total / sum(score.numel() for score in own)
