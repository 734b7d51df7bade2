"""Evaluating a network at given weights without touching it."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tombola.errors import TombolaError
from tombola.scores.types import Batch, Batches, Called, Forward, Loss, forward
from tombola.structure import Mode, Prunable, in_mode, own_random_state
from tombola.tickets import Mask, buffers_of, check_fits, device_of, eager, parameters_of, paths_of


class UnusedWarning(UserWarning):
    """What the network gives does not depend on a prunable weight, which so has no gradient."""


class Pure:
    """A network that is evaluated at copies: `weights` are its prunable parameters, fresh leaves that want gradients.

    values: the same numbers, for a score to multiply with; with `regrow` those of the model itself, without the mask.
    Everything floating is in `dtype`, whatever the model's own precision. Entered through `untouched`.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: Forward,
        mask: Mask | None,
        regrow: bool,
        prunable: Prunable,
        dtype: torch.dtype,
    ) -> None:
        self.model = model
        self._called = Called(model, forward)
        self._device, self._dtype = device_of(model), dtype
        own = parameters_of(model)
        if mask is not None:
            check_fits(mask, own)
        chosen = prunable(model)
        self.weights: dict[str, Tensor] = {}
        for name, parameter in chosen.items():
            if mask is None or name not in mask:
                value = parameter.detach().to(dtype, copy=True)
            else:
                value = torch.where(mask[name].to(parameter.device), parameter.detach(), 0.0).to(dtype)
            self.weights[name] = value.requires_grad_()
        values = chosen if regrow else self.weights
        self.values = {name: value.detach().to(dtype, copy=regrow) for name, value in values.items()}
        fixed = {name: self._cast(p.detach()) for name, p in own.items() if name not in chosen}
        buffers = {
            name: b.detach().to(dtype if b.is_floating_point() else b.dtype, copy=True)
            for name, b in buffers_of(model).items()
        }
        self.others = {**fixed, **buffers}
        self._paths = paths_of(model)

    def __call__(self, inputs: Any) -> Any:
        swapped = {f"model.{self._paths[name]}": own for name, own in {**self.weights, **self.others}.items()}
        return functional_call(self._called, swapped, (self._cast(inputs),))

    def _cast(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._cast(item) for key, item in value.items()}
        if isinstance(value, tuple | list):
            return tuple(self._cast(item) for item in value)
        if not isinstance(value, Tensor):
            return value
        return value.to(self._device, self._dtype) if value.is_floating_point() else value.to(self._device)


@contextmanager
def untouched(
    model: nn.Module,
    *,
    mode: Mode,
    dtype: torch.dtype = torch.float32,
    mask: Mask | None = None,
    regrow: bool = False,
    prunable: Prunable = Prunable(),
    forward: Forward = forward,
    seed: int = 0,
) -> Generator[Pure]:
    """A `Pure` evaluation of the model in a mode (of batch norm and dropout), from a seed; all is restored after."""
    device = device_of(model)
    with (
        own_random_state(device, seed),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        eager(),
        in_mode(model, mode),
    ):
        yield Pure(model, forward, mask, regrow, prunable, dtype)


def gradients_of(value: Tensor, weights: Mapping[str, Tensor], *, create_graph: bool = False) -> list[Tensor]:
    """The gradient of a value with respect to each weight; 0, with an UnusedWarning, where it does not depend on one.

    TombolaError if it depends on none of them.
    """
    own = list(weights.values())
    found: Sequence[Tensor | None] = [None] * len(own)
    if value.requires_grad:
        found = torch.autograd.grad(value, own, create_graph=create_graph, allow_unused=True)
    unused = [name for name, gradient in zip(weights, found, strict=True) if gradient is None]
    if len(unused) == len(own):
        raise TombolaError(
            f"what the network gives depends on no prunable weight, as '{unused[0]}', so that nothing can be ranked; "
            "check how it is called, and that neither outputs nor loss are detached"
        )
    if unused:
        names = ", ".join(f"'{name}'" for name in unused)
        warnings.warn(
            f"what the network gives does not depend on {names}, which therefore scores 0; leave it out with "
            f"Prunable(exclude={tuple(unused)})",
            UnusedWarning,
            stacklevel=2,
        )
    return [torch.zeros_like(w) if g is None else g for w, g in zip(own, found, strict=True)]


def ranking(totals: list[Tensor], network: Pure) -> list[Tensor]:
    """Gradients as they are; TombolaError, naming the layers of which nothing is left, if all are 0."""
    if not any(total.any() for total in totals):
        empty = ", ".join(f"'{name}'" for name, weight in network.weights.items() if not weight.any())
        raise TombolaError(
            "the gradient of every prunable weight is 0, so that nothing can be ranked; "
            + (f"{empty} is 0 throughout: give floor=1 or a higher density" if empty else "check the loss and the data")
        )
    return totals


def mean_gradients(network: Pure, batches: Sequence[Batch], loss: Loss) -> list[Tensor]:
    """The gradient of the mean loss over all samples of the batches, one tensor a prunable weight."""
    samples = sum(batch_size(batch) for batch in batches)
    total = [torch.zeros_like(weight) for weight in network.weights.values()]
    for batch in batches:
        share = batch_size(batch) / samples
        torch._foreach_add_(total, gradients_of(loss_of(network, batch, loss) * share, network.weights))
    return ranking(total, network)


def loss_of(network: Pure, batch: Batch, loss: Loss) -> Tensor:
    """The loss of a batch, its targets put where the network is."""
    inputs, targets = batch
    outputs = network(inputs)
    device = next(iter(network.weights.values())).device
    return loss(outputs, targets.to(device) if isinstance(targets, Tensor) else targets)


def take(batches: Batches, count: int, score: str) -> list[Batch]:
    """The first `count` batches; TombolaError if there are none."""
    taken = list(islice(batches, count))
    if not taken:
        raise TombolaError(
            f"the score '{score}' needs data and got no batch; give batches of (inputs, targets) and a loss"
        )
    return taken


def needed(loss: Loss | None, score: str) -> Loss:
    if loss is None:
        raise TombolaError(f"the score '{score}' needs a loss; give one, as torch.nn.functional.cross_entropy")
    return loss


def batch_size(batch: Batch) -> int:
    """Samples in a batch: the length of its first input tensor."""
    inputs = batch[0]
    while isinstance(inputs, dict | tuple | list):
        inputs = next(iter(inputs.values() if isinstance(inputs, dict) else inputs))
    return len(inputs)
