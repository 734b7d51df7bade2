"""Which filters of a network are shared among workers, and who has which of them in one division."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.methods.communication import Communication
from tombola.shrinking import axes_of
from tombola.structure import (
    INPUTS,
    NOBODY,
    Axes,
    Block,
    CoupledUnits,
    Kept,
    Probe,
    kept_channels,
    narrowed,
    residual_blocks,
)
from tombola.tickets import tensors_of
from tombola.training import mixed

WhichBlocks = Literal["later", "every"]


@dataclass(frozen=True, eq=False)
class InnerFilters:
    """The filters inside a network's residual blocks that feed nothing but their own block.

    Of a block's convolutions every second one has its filters here, from the first one on: no weight then lies between
    two filters of which each could go to another worker.

    Args:
        units: all channels of the network.
        shared: the layers whose filters are shared among workers, with their numbers of filters.
        pruned: the layers whose filters may be pruned, with their numbers of filters.
    """

    units: CoupledUnits
    shared: Mapping[str, int]
    pruned: Mapping[str, int]

    @staticmethod
    def of(model: nn.Module, units: CoupledUnits, probe: Probe, blocks: WhichBlocks) -> InnerFilters:
        """Find them.

        Args:
            model: the network.
            units: its channels.
            probe: calls it on an example of its inputs.
            blocks: whose filters are shared: those of `every` block, or of blocks that are not the first of their
                stage, in all stages but the first (`later`). Then first blocks are not pruned either.

        Raises:
            TombolaError: if there are none.
        """
        found = residual_blocks(model, probe)
        firsts = list({block.stage: block.name for block in reversed(found)}.values())
        stage = found[0].stage if found else ""
        pruned = [block for block in found if blocks == "every" or block.name not in firsts]
        shared = [block for block in pruned if blocks == "every" or block.stage != stage]
        inner = {block.name: _inner_families(units, block) for block in found}
        of = units.families.sizes
        chosen, prunable = (
            {name: of[name] for block in some for name in inner[block.name]} for some in (shared, pruned)
        )
        if not chosen:
            why = (
                "none of its residual blocks has filters that feed the block alone"
                if found
                else (
                    "it has no residual block; use one that has, as resnet20, or say what your blocks add: "
                    "tb.structure.declare_blocks(model, {'layer1.1': ('bn2',)})"
                )
            )
            if blocks == "later" and any(inner.values()):
                why = "each of its residual blocks is the first of its stage or in the first stage; give blocks='every'"
            raise TombolaError(f"no filters of this network can be shared among workers: {why}")
        return InnerFilters(units, chosen, prunable)

    def norms(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The squared L2 norm of each prunable filter, by layer.

        Args:
            tensors: the network's parameters, by name.
        """
        groups, norms = {group.name: group for group in self.units.groups}, {}
        for family, size in self.pruned.items():
            layer, numbers = next(iter(self.units.families.members[family].items()))
            weight = next(part for part in groups[layer].slices if part.parameter == f"{layer}.weight")
            of_channels = weight.totals(tensors[weight.parameter].detach().double().square(), len(numbers)).cpu()
            of_units = torch.zeros(size + 1, dtype=torch.double)  # the last is nobody's
            norms[family] = of_units.index_add_(0, numbers.where(numbers != NOBODY, size), of_channels)[:size]
        return norms


@dataclass(frozen=True, eq=False)
class Divisions:
    """All divisions of a network's filters among workers: the same for the same seed, in every process.

    Args:
        filters: those that are shared.
        model: the whole network.
        workers: among how many.
        shares: how much of each layer each worker has, in proportion; nothing for equal shares.
        seed: what each division's permutations are drawn from, with the division's number.

    Raises:
        TombolaError: if a layer has fewer filters than there are workers.
    """

    filters: InnerFilters
    model: nn.Module
    workers: int
    shares: tuple[float, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        layer, size = min(self.filters.shared.items(), key=lambda own: own[1])
        if size < self.workers:
            raise TombolaError(
                f"'{layer}' has {size} filters, which {self.workers} workers cannot share; give at most {size} workers"
            )

    def owners(self, number: int) -> dict[str, Tensor]:
        """The worker of each filter, by layer; number: of the division, from 0."""
        generator = torch.Generator().manual_seed(mixed(self.seed, number))
        return {
            layer: dealt(torch.randperm(size, generator=generator), self.workers, self.shares)
            for layer, size in self.filters.shared.items()
        }

    def kept(self, number: int, worker: int) -> dict[str, Kept]:
        """The channels of the layers that are smaller in a worker's network."""
        wiring, families = self.filters.units.wiring, self.filters.units.families
        removed: dict[str, Tensor] = {}
        for layer, owner in self.owners(number).items():
            for group, numbers in families.members[layer].items():
                others = (owner[numbers] != worker) & (numbers != NOBODY)
                removed[group] = removed[group] | others if group in removed else others
        return kept_channels(wiring, removed)

    def axes(self, number: int, worker: int) -> dict[str, Axes]:
        """The positions of a worker's network in the tensors of the whole one; tensors that it has whole are left out.

        Args:
            number: of the division, from 0.
            worker: its rank, from 0.
        """
        axes = {}
        for name, all_of in axes_of(self.model, self.kept(number, worker)).items():
            shape = self._shapes[name]
            if narrow := {dim: places for dim, places in all_of.items() if len(places) < shape[dim]}:
                axes[name] = narrow
        return axes

    def count(self, tensors: Mapping[str, Tensor]) -> Communication:
        """The count of bytes that workers send; tensors: which of the whole network's count, by name."""
        networks = []
        for rank in range(self.workers):
            axes = self.axes(0, rank)
            shares = {name: [len(p) / self._shapes[name][d] for d, p in own.items()] for name, own in axes.items()}
            sizes = (round(tensor.numel() * prod(shares.get(name, ()))) for name, tensor in tensors.items())
            networks.append(sum(sizes))
        return Communication(tuple(networks), sum(tensor.numel() for tensor in tensors.values()))

    @cached_property
    def _shapes(self) -> dict[str, torch.Size]:
        return {name: tensor.shape for name, tensor in tensors_of(self.model).items()}


def dealt(order: Tensor, workers: int, shares: Sequence[float] = ()) -> Tensor:
    """Deal a layer's filters to workers.

    Args:
        order: the filters in the order in which they are dealt.
        workers: how many there are.
        shares: what each worker gets, in proportion, and at least one filter; without them filters are dealt in turns,
            so that numbers differ by one at most.

    Returns:
        The worker of each filter.

    Examples:
        >>> dealt(torch.tensor([2, 0, 1, 3]), 2).tolist()
        [1, 0, 0, 1]
        >>> dealt(torch.arange(8), 2, (3, 1)).tolist()
        [0, 0, 0, 0, 0, 0, 1, 1]
    """
    count, owner = len(order), torch.empty(len(order), dtype=torch.long)
    if not shares:
        owner[order] = torch.arange(count) % workers
        return owner
    exact = [share * count / sum(shares) for share in shares]
    sizes = [max(1, int(size)) for size in exact]
    while sum(sizes) != count:
        step = 1 if sum(sizes) < count else -1
        open_to = [own for own in range(workers) if sizes[own] + step >= 1]
        sizes[max(open_to, key=lambda own: step * (exact[own] - sizes[own]))] += step
    owner[order] = torch.repeat_interleave(torch.arange(workers), torch.tensor(sizes))
    return owner


@torch.no_grad()
def deal(whole: Mapping[str, Tensor], part: Mapping[str, Tensor], axes: Mapping[str, Axes]) -> None:
    """Copy a worker's slices out of the whole network.

    Args:
        whole: the whole network's tensors, by name.
        part: the worker's, which are changed.
        axes: where these lie in the whole ones.
    """
    for name, tensor in part.items():
        tensor.copy_(narrowed(whole[name], axes[name]) if name in axes else whole[name])


@torch.no_grad()
def merge(
    whole: Mapping[str, Tensor],
    parts: Sequence[Mapping[str, Tensor]],
    axes: Sequence[Mapping[str, Axes]],
    of_first: Collection[str] = (),
) -> None:
    """Write the workers' slices back into the whole network; what several of them have is averaged over these.

    Args:
        whole: the whole network's tensors of floating point, by name, which are changed.
        parts: each worker's tensors.
        axes: where each worker's tensors lie in the whole ones.
        of_first: tensors that are not averaged where all workers have them, but the first worker's.
    """
    for name, tensor in whole.items():
        own = [part[name] for part in parts]
        if not any(name in of for of in axes):
            tensor.copy_(own[0] if name in of_first else sum(own[1:], own[0]) / len(own))
            continue
        total, count = torch.zeros_like(tensor), torch.zeros_like(tensor)
        for values, of in zip(own, axes, strict=True):
            place = _places(tensor, of.get(name, {}))
            total[place] += values
            count[place] += 1
        tensor.copy_(torch.where(count > 0, total / count, tensor))


def _places(tensor: Tensor, axes: Axes) -> tuple[Tensor, ...]:
    """The index of the block of a tensor at these positions of its dimensions."""
    return tuple(
        axes.get(dim, torch.arange(size)).to(tensor.device).view(-1, *[1] * (tensor.ndim - dim - 1))
        for dim, size in enumerate(tensor.shape)
    )


def _inner_families(units: CoupledUnits, block: Block) -> list[str]:
    """The layers of a block whose filters feed this block alone, without those next to one that was taken before."""
    chosen: list[str] = []
    taken: set[str] = set()
    for family, members in units.families.members.items():
        layers = {group.removesuffix(INPUTS) for group in members}
        if not all(layer.startswith(f"{block.name}.") for layer in layers) or layers & taken:
            continue
        chosen.append(family)
        taken |= layers
    return chosen
