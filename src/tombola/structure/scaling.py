"""Where the channels of a group can be multiplied, and the factors put into the weights there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tombola.structure.layers import (
    BATCH_NORMS,
    TRANSPOSED,
    is_depthwise,
    is_producer,
    normed_together,
)
from tombola.structure.wiring import INPUTS, NOBODY, PINNED, Wiring
from tombola.tickets import modules_of


@dataclass(frozen=True)
class Site:
    """Channels that enter or leave a module, and to which of a group's units each belongs.

    scaled: whether a unit's channels are multiplied by its factor here; else only removed units are silenced.
    """

    module: str
    entering: bool
    units: tuple[int, ...]
    scaled: bool = True

    def multiply(self, values: Tensor, factors: Tensor, module: nn.Module) -> Tensor:
        """What enters or leaves the module, with its channels multiplied.

        values: the samples of the first row of factors, then as many of the next; factors: (rows, units), 0 where a
        unit is removed.
        """
        own = self._spread(factors if self.scaled else (factors != 0).to(factors.dtype))
        axis = self.axis(module)
        shape = [1] * values.ndim
        shape[0], shape[axis] = len(values), len(self.units)
        own = own.repeat_interleave(len(values) // len(own), 0).reshape(shape)
        return values * own.to(values.device, values.dtype)

    @torch.no_grad()
    def fold(self, factors: Tensor, module: Any) -> None:
        """Multiply the module's own weights, so that the factors of kept units are no longer needed."""
        if not self.scaled:
            return
        own = self._spread(torch.where(factors == 0, 1.0, factors)[None])[0]
        across = isinstance(module, TRANSPOSED)
        parts = {"weight": 1 - across} if self.entering else {"weight": int(across), "bias": 0}
        for name, dim in parts.items():
            tensor = getattr(module, name, None)
            if tensor is not None:
                shape = [1] * tensor.ndim
                shape[dim] = len(own)
                tensor.mul_(own.reshape(shape).to(tensor.device, tensor.dtype))

    def _spread(self, factors: Tensor) -> Tensor:
        """One factor a channel, from one a unit: (rows, units) to (rows, channels)."""
        beside = torch.cat([factors, torch.ones_like(factors[:, :1])], 1)
        return beside[:, torch.tensor(self.units, device=factors.device)]

    def axis(self, module: nn.Module) -> int:
        """Along which the channels lie."""
        return -1 if isinstance(module, (nn.Linear, nn.LayerNorm)) else 1


def sites_of(wiring: Wiring, model: nn.Module) -> dict[str, tuple[Site, ...]]:
    """For each layer of more than one channel that can be removed, where its channels can be multiplied.

    That is where they enter the layers behind, if these take them from nowhere else: behind the activation. A channel
    that is added to others, as one of a residual stream, is multiplied where it leaves its layer and norm. A layer is
    left out where no weight could take the factors, or where its channels are those of a layer before, as of a
    depthwise convolution.
    """
    drawn, found = _Places(wiring, modules_of(model)), {}
    for group in wiring.groups:
        removable = group.size > 1 and any(part.scored for part in group.slices)
        if removable and is_producer(drawn.named.get(group.name)):
            sites = drawn.sites(group.name)
            if sites and sites not in found.values():
                found[group.name] = sites
    return found


def silenced_sites(
    wiring: Wiring, name: str, sites: tuple[Site, ...], removed: Mapping[str, Tensor]
) -> tuple[Site, ...]:
    """Beyond the sites of a layer, where its units, once removed, are the last to fall silent that a norm is fed by.

    A mask silences the norm's channel then, its shift too. removed: by layer, which of its units are gone already.
    """
    if any(site.entering for site in sites):
        return ()
    size = next(group.size for group in wiring.groups if group.name == name)
    before = wiring.spread(removed, silencing=True)
    after = wiring.spread({**removed, name: torch.ones(size, dtype=torch.bool)}, silencing=True)
    fed, known = wiring.fed_from(name), {name, *(site.module for site in sites)}
    found = []
    for group in wiring.groups:
        module = wiring.norms.get(group.name, group.name)
        falls = after[group.name] & ~before[group.name]
        if group.slices and not group.name.endswith(INPUTS) and falls.any() and known.isdisjoint({group.name, module}):
            units = torch.where(falls, fed[group.name], NOBODY)
            found.append(Site(module, False, tuple(units.tolist()), scaled=False))
    return tuple(found)


class _Places:
    """The channels of a wiring by their numbers, and the modules by their names."""

    def __init__(self, wiring: Wiring, named: Mapping[str, nn.Module]) -> None:
        self.named, self._wiring = named, wiring
        self._names = ["", *(group.name for group in wiring.groups)]
        sizes = torch.tensor([1, *(group.size for group in wiring.groups)])
        self._group = torch.arange(len(sizes)).repeat_interleave(sizes)
        self._slices = {group.name: group.slices for group in wiring.groups}

    def sites(self, name: str) -> tuple[Site, ...]:
        size = int((self._group == self._names.index(name)).sum())
        owners = self._own(name, torch.arange(size))
        if normed_together(self._norm(name)) > 1:
            return self._leaving(name, owners)
        while True:
            fed = self._fed_alone(owners)
            reached = [] if fed is None else self._reached(fed)
            if fed is None or not reached:
                return self._leaving(name, owners)
            if all(own.endswith(INPUTS) and self._slices[own] for own in reached):
                return tuple(Site(own.removesuffix(INPUTS), True, self._at(own, fed)) for own in reached)
            if len(reached) > 1 or not self._passes(reached[0]):
                return self._leaving(name, owners)
            name, owners = reached[0], fed

    def _leaving(self, name: str, owners: Tensor) -> tuple[Site, ...]:
        norm, units = self._norm(name), self._at(name, owners)
        if norm is self.named[name]:
            return (Site(name, False, units),)
        if normed_together(norm) > 1:
            return (Site(name, False, units), Site(self._wiring.norms[name], False, units, scaled=False))
        scaled = getattr(norm, "weight", None) is not None
        return (Site(self._wiring.norms[name], False, units),) if scaled else ()

    def _passes(self, name: str) -> bool:
        """Whether a group's channels pass through it one by one, and leave it with a weight of their own."""
        module = self.named.get(name)
        alone = is_depthwise(module) or isinstance(module, BATCH_NORMS)
        return alone and bool(self._slices[name]) and normed_together(self._norm(name)) == 1

    def _norm(self, name: str) -> Any:
        """The norm that follows a layer alone, or else the layer."""
        return self.named[self._wiring.norms.get(name, name)]

    def _fed_alone(self, owners: Tensor) -> Tensor | None:
        """By channel that these feed the unit that feeds it; None where anything else feeds one of them too."""
        sources, targets = self._wiring.flows
        feeding = owners[sources]
        fed = torch.full_like(owners, NOBODY)
        fed[targets[feeding != NOBODY]] = feeding[feeding != NOBODY]
        reached = fed[targets] != NOBODY
        if fed[PINNED] != NOBODY or not torch.equal(fed[targets][reached], feeding[reached]):
            return None
        return fed

    def _reached(self, fed: Tensor) -> list[str]:
        return [self._names[own] for own in self._group[fed != NOBODY].unique().tolist()]

    def _own(self, name: str, units: Tensor) -> Tensor:
        owners = torch.full_like(self._group, NOBODY)
        owners[self._group == self._names.index(name)] = units
        return owners

    def _at(self, name: str, owners: Tensor) -> tuple[int, ...]:
        return tuple(owners[self._group == self._names.index(name)].tolist())


def fold(model: nn.Module, sites: tuple[Site, ...], factors: Tensor) -> None:
    """Put the factors of a group's kept units into the weights at its sites, in place; those removed are left alone."""
    named = modules_of(model)
    for site in sites:
        site.fold(factors, named[site.module])
