"""How much a loss feels gates on heads and feed-forward parts: the importance of a unit without a weight of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.nested import mapped
from tombola.scores.types import Batch, Forward, Loss, forward, suited
from tombola.structure import Units, in_mode
from tombola.tickets import device_of, parameters_of, recomputable

Accumulate = Literal["batch", "running"]
"""batch: the size of each batch's gradient is added. running: gradients are never zeroed, and the size of their sum so
far is added after each batch, as in the code of Michel et al. and Prasanna et al.; signs cancel, and early batches
count more.
"""


def gate_importance(
    model: nn.Module,
    gates: Units,
    batches: Iterable[Batch],
    loss: Loss,
    forward: Forward = forward,
    *,
    open_weights: Mapping[str, Tensor] | None = None,
    accumulate: Accumulate = "batch",
) -> dict[str, Tensor]:
    """Importance Σ |∂L/∂g| of a gate g on each unit, in one pass over batches (Michel et al., NeurIPS 2019).

    A gate multiplies what the network reads of a unit. It is folded into the weights W by which it is read, so that it
    costs nothing: ∂L/∂g = Σ W · ∂L/∂(gW). Dropout is off.

    Args:
        model: the network; it stays as it is. A closed gate has weights of zero in it.
        gates: the units with the weights that read them, as `TransformerUnits.gates`.
        batches: (inputs, targets).
        loss: of outputs and targets.
        forward: calls the network on inputs.
        open_weights: those weights with all gates open, by name; the network's own if None.
        accumulate: how the batches' gradients are put together.

    Returns:
        One vector a group, by its name; a number for each unit, 0 or larger.

    Raises:
        TombolaError: if there is no batch.

    Examples:
        >>> from tombola.structure import Slice, UnitGroup
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> gates = Units((UnitGroup("2", 3, (Slice("2.weight", 1, ((0,), (1,), (2,))),)),))
        >>> batch = torch.ones(4, 2), torch.zeros(4, 1)
        >>> gate_importance(model, gates, [batch], nn.functional.mse_loss)["2"].shape
        torch.Size([3])
    """
    names = list(dict.fromkeys(part.parameter for group in gates.groups for part in group.slices))
    own, device = parameters_of(model), device_of(model)
    read = {name: own[name] for name in names}
    weights = {name: (open_weights or own)[name].detach() for name in names}
    demanded = {name: parameter.requires_grad for name, parameter in own.items()}
    total: dict[str, Tensor] = {}
    importance: dict[str, Tensor] = {}
    try:
        for name, parameter in own.items():
            parameter.requires_grad_(name in read)
        with in_mode(model, "eval"), torch.enable_grad(), recomputable():
            for inputs, targets in batches:
                value = loss(forward(model, suited(inputs, model)), mapped(targets, lambda own: own.to(device)))
                gradients = torch.autograd.grad(value, list(read.values()))
                products = {name: weights[name] * gradient for name, gradient in zip(read, gradients, strict=True)}
                for name, gradient in gates.reduce(products).items():
                    running = accumulate == "running" and name in total
                    total[name] = gradient + total[name] if running else gradient
                    importance[name] = importance.get(name, torch.zeros_like(gradient)) + total[name].abs()
    finally:
        for name, parameter in own.items():
            parameter.requires_grad_(demanded[name])
    if not importance:
        raise TombolaError("there is no batch to take gates' gradients on; give at least one")
    return importance
