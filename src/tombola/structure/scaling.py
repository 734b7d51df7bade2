"""Where the channels of a group can be multiplied by factors, and how the factors get into the weights there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tombola.structure.layers import (
    BATCH_NORMS,
    is_depthwise,
    is_linear,
    is_producer,
    is_transposed,
    normed_together,
)
from tombola.structure.partial_norm import norm_form
from tombola.structure.wiring import INPUTS, NOBODY, PINNED, Wiring
from tombola.tickets import modules_of


@dataclass(frozen=True)
class Site:
    """Channels that enter or leave a module, and the unit of a group to which each belongs.

    Args:
        module: the module's name.
        entering: whether the channels enter it; else they leave it.
        units: for each channel the number of its unit, or NOBODY.
        scaled: whether a unit's channels are multiplied by its factor here; else only removed units are silenced.
    """

    module: str
    entering: bool
    units: tuple[int, ...]
    scaled: bool = True

    def multiply(self, values: Tensor, factors: Tensor, module: nn.Module) -> Tensor:
        """What enters or leaves the module, with its channels multiplied.

        Args:
            values: what enters or leaves: the samples for the first row of factors, then as many for the next row.
            factors: (rows, units); 0 where a unit is removed.
            module: the module.
        """
        by_channel = self._spread(factors if self.scaled else (factors != 0).to(factors.dtype))
        axis = self.axis(module)
        shape = [1] * values.ndim
        shape[0], shape[axis] = len(values), len(self.units)
        by_channel = by_channel.repeat_interleave(len(values) // len(by_channel), 0).reshape(shape)
        return values * by_channel.to(values.device, values.dtype)

    @torch.no_grad()
    def fold(self, factors: Tensor, module: Any) -> None:
        """Multiply the module's own weights, in place, so that the factors of kept units are no longer needed.

        Args:
            factors: one a unit; 0 where it is removed, whose weights stay as they are.
            module: the module.
        """
        if not self.scaled:
            return
        by_channel = self._spread(torch.where(factors == 0, 1.0, factors)[None])[0]
        transposed = is_transposed(module)
        dims = {"weight": 1 - transposed} if self.entering else {"weight": int(transposed), "bias": 0}
        for name, dim in dims.items():
            parameter = getattr(module, name, None)
            if parameter is not None:
                shape = [1] * parameter.ndim
                shape[dim] = len(by_channel)
                parameter.mul_(by_channel.reshape(shape).to(parameter.device, parameter.dtype))

    def _spread(self, factors: Tensor) -> Tensor:
        """One factor a channel, from one a unit: (rows, units) to (rows, channels)."""
        padded = torch.cat([factors, torch.ones_like(factors[:, :1])], 1)  # NOBODY, which is -1, takes the 1 at the end
        return padded[:, torch.tensor(self.units, device=factors.device)]

    def axis(self, module: nn.Module) -> int:
        """The axis along which the channels lie."""
        form = norm_form(module)
        return -1 if is_linear(module) else 1 if form is None else form.axis


def sites_of(wiring: Wiring, model: nn.Module) -> dict[str, tuple[Site, ...]]:
    """Where the channels of each layer can be multiplied, by the layer's name.

    Channels are multiplied behind the activation, where they enter the layers behind, if nothing else feeds these. A
    channel that is added to others, as in a residual stream, is multiplied where it leaves its layer and norm. A
    layer is left out if it has only one channel, if its channels cannot be removed, if no weight could take the
    factors, or if its channels are those of a layer before, as in a depthwise convolution.

    Args:
        wiring: which channels of the network feed which.
        model: the network.
    """
    places, by_layer = _Places(wiring, modules_of(model)), {}
    for group in wiring.groups:
        removable = group.size > 1 and any(part.scored for part in group.slices)
        if removable and is_producer(places.modules.get(group.name)):
            sites = places.sites(group.name)
            if sites and sites not in by_layer.values():
                by_layer[group.name] = sites
    return by_layer


def silenced_sites(
    wiring: Wiring, name: str, sites: tuple[Site, ...], removed: Mapping[str, Tensor]
) -> tuple[Site, ...]:
    """Norms, beyond a layer's sites, whose channels fall silent once the layer's units are removed.

    A norm's channel that only dead channels feed is dead in the mask too, its shift included.

    Args:
        wiring: which channels of the network feed which.
        name: the layer.
        sites: its sites.
        removed: by layer, which of its units are removed already.
    """
    if any(site.entering for site in sites):
        return ()
    size = next(group.size for group in wiring.groups if group.name == name)
    before = wiring.spread(removed, silencing=True)
    after = wiring.spread({**removed, name: torch.ones(size, dtype=torch.bool)}, silencing=True)
    feeders, multiplied = wiring.fed_from(name), {name, *(site.module for site in sites)}
    silenced = []
    for group in wiring.groups:
        module = wiring.norms.get(group.name, group.name)
        falls = after[group.name] & ~before[group.name]
        if (
            group.slices
            and not group.name.endswith(INPUTS)
            and falls.any()
            and multiplied.isdisjoint({group.name, module})
        ):
            units = torch.where(falls, feeders[group.name], NOBODY)
            silenced.append(Site(module, False, tuple(units.tolist()), scaled=False))
    return tuple(silenced)


class _Places:
    """The channels of a wiring by their numbers, and the modules by their names.

    `owners` below is always a vector over all channels: the unit of the layer in question that each carries, or NOBODY.
    """

    def __init__(self, wiring: Wiring, modules: Mapping[str, nn.Module]) -> None:
        self.modules, self._wiring = modules, wiring
        self._names = ["", *(group.name for group in wiring.groups)]  # channel 0, which always lives, is in no group
        sizes = torch.tensor([1, *(group.size for group in wiring.groups)])
        self._group = torch.arange(len(sizes)).repeat_interleave(sizes)
        self._slices = {group.name: group.slices for group in wiring.groups}

    def sites(self, name: str) -> tuple[Site, ...]:
        """Where a layer's channels can be multiplied: as far behind it as they stay alone."""
        size = int((self._group == self._names.index(name)).sum())
        owners = self._owners(name, torch.arange(size))
        if normed_together(self._norm(name)) > 1:
            return self._leaving(name, owners)
        while True:
            fed = self._fed_alone(owners)
            reached = [] if fed is None else self._reached(fed)
            if fed is None or not reached:
                return self._leaving(name, owners)
            if all(self._takes(group) for group in reached):
                return tuple(Site(group.removesuffix(INPUTS), True, self._at(group, fed)) for group in reached)
            if len(reached) > 1 or not self._passes(reached[0]):
                return self._leaving(name, owners)
            name, owners = reached[0], fed

    def _leaving(self, name: str, owners: Tensor) -> tuple[Site, ...]:
        """Where channels leave a layer, or the norm behind it if that has a scale."""
        norm, units = self._norm(name), self._at(name, owners)
        if norm is self.modules[name]:
            return (Site(name, False, units),)
        if normed_together(norm) > 1:  # factors go before the norm, but its shift would let removed channels speak
            return (Site(name, False, units), Site(self._wiring.norms[name], False, units, scaled=False))
        scaled = getattr(norm, "weight", None) is not None
        return (Site(self._wiring.norms[name], False, units),) if scaled else ()

    def _takes(self, name: str) -> bool:
        """Whether a group is the inputs of a layer whose weight could take the factors; a recurrent one has several."""
        layer = self.modules.get(name.removesuffix(INPUTS))
        return name.endswith(INPUTS) and bool(self._slices[name]) and is_producer(layer)

    def _passes(self, name: str) -> bool:
        """Whether a group's channels pass through it one by one, each with weights of its own."""
        module = self.modules.get(name)
        by_channel = is_depthwise(module) or isinstance(module, BATCH_NORMS)
        return by_channel and bool(self._slices[name]) and normed_together(self._norm(name)) == 1

    def _norm(self, name: str) -> Any:
        """The norm that only follows this layer, or else the layer."""
        return self.modules[self._wiring.norms.get(name, name)]

    def _fed_alone(self, owners: Tensor) -> Tensor | None:
        """The owners of the channels that these feed; None if anything else feeds one of them too."""
        sources, targets = self._wiring.flows
        feeding = owners[sources]
        fed = torch.full_like(owners, NOBODY)
        fed[targets[feeding != NOBODY]] = feeding[feeding != NOBODY]
        reached = fed[targets] != NOBODY
        if fed[PINNED] != NOBODY or not torch.equal(fed[targets][reached], feeding[reached]):
            return None
        return fed

    def _reached(self, fed: Tensor) -> list[str]:
        return [self._names[group] for group in self._group[fed != NOBODY].unique().tolist()]

    def _owners(self, name: str, units: Tensor) -> Tensor:
        owners = torch.full_like(self._group, NOBODY)
        owners[self._group == self._names.index(name)] = units
        return owners

    def _at(self, name: str, owners: Tensor) -> tuple[int, ...]:
        return tuple(owners[self._group == self._names.index(name)].tolist())


def fold(model: nn.Module, sites: tuple[Site, ...], factors: Tensor) -> None:
    """Put the factors of a group's kept units into the weights at its sites.

    Args:
        model: the network, changed in place.
        sites: the group's sites.
        factors: one a unit; 0 where it is removed, whose weights stay as they are.
    """
    modules = modules_of(model)
    for site in sites:
        site.fold(factors, modules[site.module])
