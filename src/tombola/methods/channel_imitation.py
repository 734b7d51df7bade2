"""Imitating what a layer's channels do for the layers behind, by linear algebra on one forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tombola.methods.prefix_cache import PrefixCache
from tombola.scores import Forward, Inputs
from tombola.structure import NOBODY, TRANSPOSED, Site
from tombola.tickets import modules_of

ENTRIES = 2**25
"""Numbers that contributions of channels hold at once, at most."""


def gram(model: nn.Module, sites: Sequence[Site], size: int, forward: Forward, batches: Iterable[Inputs]) -> Tensor:
    """Inner products (units, units) of what each unit adds to what the layers behind compute, over all samples.

    Where channels are multiplied as they leave their layer, that is to what leaves it: units then have none in common.
    """
    named = modules_of(model)
    total = torch.zeros(size, size, dtype=torch.float64)
    seen: list[tuple[Site, Tensor]] = []

    def note(site: Site, values: Tensor) -> None:
        seen.append((site, values.clone()))

    with PrefixCache(model, (), forward).ready() as network, ExitStack() as hooks:
        for site in (own for own in sites if own.scaled):
            module = named[site.module]
            if site.entering:
                hooks.enter_context(module.register_forward_pre_hook(lambda _, args, site=site: note(site, args[0])))
            else:
                hooks.enter_context(module.register_forward_hook(lambda _, __, given, site=site: note(site, given)))
        for inputs in batches:
            seen.clear()
            network.call(inputs)
            for site, values in list(seen):
                total += _products(site, named[site.module], values, size).cpu()
    return total


def _products(site: Site, module: Any, values: Tensor, size: int) -> Tensor:
    units = torch.tensor(site.units, device=values.device)
    total = torch.zeros(size, size, dtype=torch.float64, device=values.device)
    axis = site.axis(module)
    if not site.entering:
        energies = values.double().square().movedim(axis, 0).flatten(1).sum(1)
        here = units != NOBODY
        return total + torch.diag(total.new_zeros(size).index_add_(0, units[here], energies[here]))
    own = [unit for unit in range(size) if unit in site.units]
    channels = [(units == unit).nonzero().flatten() for unit in own]
    values = values.to(module.weight.dtype)
    rows = max(1, ENTRIES // (size * len(_added(module, axis, values[:1], channels[0]))))
    for part in values.split(rows):
        added = torch.stack([_added(module, axis, part, some) for some in channels])
        total[torch.tensor(own)[:, None], own] += (added @ added.T).double()
    return total


def _added(module: Any, axis: int, values: Tensor, channels: Tensor) -> Tensor:
    """What some input channels add to a convolution's or linear layer's outputs, as one row."""
    weight = module.weight.index_select(0 if isinstance(module, TRANSPOSED) else 1, channels)
    bias = {} if module.bias is None else {"bias": torch.zeros_like(module.bias)}
    return functional_call(module, {"weight": weight} | bias, (values.index_select(axis, channels),)).flatten()


def imitation_weights(products: Tensor, picks: int, repeat: bool) -> tuple[list[int], list[Tensor], list[float]]:
    """Picks units so that their weighted sum comes nearest to that of all units, each by the best step towards it.

    products: inner products (units, units). The first pick takes all the weight; each later one moves the weights
    a ← (1 − γ)a + γe by the γ in (0, 1] that leaves the smallest squared error. Ends early where nothing helps. Returns
    the picks, and after each the factors units · a and the error relative to that of no unit at all.
    """
    size = len(products)
    whole = torch.ones(size, dtype=torch.float64)
    scale = products.sum().clamp(min=torch.finfo(torch.float64).tiny)
    diagonal, factors = products.diagonal(), torch.zeros(size, dtype=torch.float64)
    order: list[int] = []
    steps: list[Tensor] = []
    errors: list[float] = []
    for number in range(picks):
        gap = products @ (factors - whole)
        spread = products @ factors
        slopes = size * gap - factors @ gap
        bends = size**2 * diagonal - 2 * size * spread + factors @ spread
        best_step = torch.where(bends > 0, -slopes / bends, 0.0).clamp(0.0, 1.0) if number else torch.ones(size)
        gains = -(2 * best_step * slopes + best_step.square() * bends)
        if not repeat:
            gains[order] = -torch.inf
        chosen = int(gains.argmax())
        if number and not gains[chosen] > 0:
            break
        factors = (1 - best_step[chosen]) * factors
        factors[chosen] += size * best_step[chosen]
        order.append(chosen)
        steps.append(factors)
        left = factors - whole
        errors.append(float((left @ products @ left) / scale))
    return order, steps, errors
