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
from tombola.structure import NOBODY, Site, is_transposed
from tombola.tickets import modules_of

ENTRIES = 2**25
"""Numbers that contributions of channels hold at once, at most."""


def gram(model: nn.Module, sites: Sequence[Site], size: int, forward: Forward, batches: Iterable[Inputs]) -> Tensor:
    """Inner products of what the units of a layer add to what the layers behind compute, over all samples.

    Where channels are multiplied as they leave their layer, what they add is what leaves it, so two units share
    nothing.

    Args:
        model: the network.
        sites: where the units' channels are multiplied.
        size: how many units there are.
        forward: how to call the model on inputs.
        batches: inputs.

    Returns:
        A float64 matrix (units, units), on the CPU.
    """
    modules = modules_of(model)
    total = torch.zeros(size, size, dtype=torch.float64)
    captured: list[tuple[Site, Tensor]] = []

    def note(site: Site, values: Tensor) -> None:
        captured.append((site, values.clone()))  # Cloned, since an activation behind may work in place.

    with PrefixCache(model, (), forward).ready() as network, ExitStack() as hooks:
        for site in (site for site in sites if site.scaled):
            module = modules[site.module]
            if site.entering:
                hooks.enter_context(module.register_forward_pre_hook(lambda _, args, site=site: note(site, args[0])))
            else:
                hooks.enter_context(module.register_forward_hook(lambda _, __, output, site=site: note(site, output)))
        for inputs in batches:
            captured.clear()
            network.call(inputs)
            for site, values in list(captured):  # Of a copy, since calling modules on their own fires the hooks again.
                total += _products(site, modules[site.module], values, size).cpu()
    return total


def _products(site: Site, module: Any, values: Tensor, size: int) -> Tensor:
    """One site's part of `gram`, for one batch."""
    units = torch.tensor(site.units, device=values.device)
    total = torch.zeros(size, size, dtype=torch.float64, device=values.device)
    axis = site.axis(module)
    if not site.entering:
        energies = values.double().square().movedim(axis, 0).flatten(1).sum(1)
        owned = units != NOBODY
        return total + torch.diag(total.new_zeros(size).index_add_(0, units[owned], energies[owned]))
    present = [unit for unit in range(size) if unit in site.units]
    channels = [(units == unit).nonzero().flatten() for unit in present]
    values = values.to(module.weight.dtype)
    rows = max(1, ENTRIES // (size * len(_contribution(module, axis, values[:1], channels[0]))))
    for chunk in values.split(rows):
        contributions = torch.stack([_contribution(module, axis, chunk, channel) for channel in channels])
        total[torch.tensor(present)[:, None], present] += (contributions @ contributions.T).double()
    return total


def _contribution(module: Any, axis: int, values: Tensor, channels: Tensor) -> Tensor:
    """What some input channels add to the outputs of a convolution or a linear layer, as one row."""
    weight = module.weight.index_select(0 if is_transposed(module) else 1, channels)
    bias = {} if module.bias is None else {"bias": torch.zeros_like(module.bias)}
    return functional_call(module, {"weight": weight} | bias, (values.index_select(axis, channels),)).flatten()


def imitation_weights(products: Tensor, picks: int, repeat: bool) -> tuple[list[int], list[Tensor], list[float]]:
    """Pick units so that their weighted sum comes nearest to the sum of all units.

    Each pick is the one with the best step. The first takes all the weight. Each later one moves the weights, a ←
    (1−γ)a + γe, by the γ in (0, 1] that leaves the smallest squared error. Ends early where no step helps.

    Args:
        products: inner products (units, units), in float64.
        picks: how many units to pick at most.
        repeat: whether a unit may be picked again.

    Returns:
        The picks in their order; after each of them the factors units · a; and after each the squared error, relative
        to that of no unit at all.
    """
    size = len(products)
    all_units = torch.ones(size, dtype=torch.float64)
    scale = products.sum().clamp(min=torch.finfo(torch.float64).tiny)
    diagonal, factors = products.diagonal(), torch.zeros(size, dtype=torch.float64)
    order: list[int] = []
    steps: list[Tensor] = []
    errors: list[float] = []
    for number in range(picks):
        gap = products @ (factors - all_units)
        spread = products @ factors
        slopes = size * gap - factors @ gap
        curves = size**2 * diagonal - 2 * size * spread + factors @ spread
        best_step = torch.where(curves > 0, -slopes / curves, 0.0).clamp(0.0, 1.0) if number else torch.ones(size)
        gains = -(2 * best_step * slopes + best_step.square() * curves)
        if not repeat:
            gains[order] = -torch.inf
        chosen = int(gains.argmax())
        if number and not gains[chosen] > 0:
            break
        factors = (1 - best_step[chosen]) * factors
        factors[chosen] += size * best_step[chosen]
        order.append(chosen)
        steps.append(factors)
        residual = factors - all_units
        errors.append(float((residual @ products @ residual) / scale))
    return order, steps, errors
