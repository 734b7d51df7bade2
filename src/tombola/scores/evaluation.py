"""Evaluating a network at given weights without changing it."""

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
from tombola.nested import mapped, samples_in
from tombola.scores.types import Batch, Batches, Called, Forward, Loss, checked_batch, forward
from tombola.structure import Mode, Prunable, in_mode, own_random_state
from tombola.tickets import (
    Mask,
    buffers_of,
    check_fits,
    check_whole,
    device_of,
    eager,
    is_spread,
    own_network,
    parameters_of,
    paths_of,
    whole,
)


class UnusedWarning(UserWarning):
    """The outputs do not depend on a prunable weight, which therefore has no gradient."""


class Pure:
    """A network that is called with copies of its tensors, so that a score may change them; `untouched` makes one.

    Attributes:
        model: the model that the copies come from.
        weights: copies of the prunable parameters at weights · mask; leaves that require gradients.
        values: the numbers that a score multiplies gradients with: `weights` without gradients, or with `regrow`
            those of the model without the mask.
        others: copies of all other parameters and of the buffers.

    Args:
        model: the model.
        forward: calls it on inputs.
        mask: what to set to 0 in `weights`, if not None.
        regrow: whether `values` are without the mask.
        prunable: chooses the prunable parameters.
        dtype: the precision of all floating-point copies and inputs, whatever the model's own.
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
        parameters = parameters_of(model)
        self._spread = any(is_spread(parameter) for parameter in parameters.values())
        if mask is not None:
            check_fits(mask, parameters)
        scored = prunable(model)
        self.weights: dict[str, Tensor] = {}
        scored = {name: whole(parameter) for name, parameter in scored.items()}
        for name, parameter in scored.items():
            if mask is None or name not in mask:
                value = parameter.to(dtype, copy=True)
            else:
                value = torch.where(mask[name].to(parameter.device), parameter, 0.0).to(dtype)
            self.weights[name] = value.requires_grad_()
        values = scored if regrow else self.weights
        # Without regrow, values share their memory with the weights: one copy is enough.
        self.values = {name: value.detach().to(dtype, copy=regrow) for name, value in values.items()}
        fixed = {
            name: self._cast(p.detach())
            for name, p in parameters.items()
            if name not in scored and not self._spread  # what is spread is not called, and not gathered for nothing
        }
        buffers = {
            # Batch norm in training mode writes into its buffers.
            name: b.detach().to(dtype if b.is_floating_point() else b.dtype, copy=True)
            for name, b in buffers_of(model).items()
        }
        self.others = {**fixed, **buffers}
        self._paths = paths_of(model)

    def __call__(self, inputs: Any) -> Any:
        if self._spread:
            check_whole(self.model, "a score that calls it")
        swapped = {f"model.{self._paths[name]}": value for name, value in {**self.weights, **self.others}.items()}
        return functional_call(self._called, swapped, (self._cast(inputs),))

    def _cast(self, value: Any) -> Any:
        return mapped(value, lambda t: t.to(self._device, self._dtype if t.is_floating_point() else t.dtype))


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
    """Evaluate a model through a `Pure` network, and restore its modes and the global random state afterwards.

    Gradients are enabled, autocast is off, and compiled networks run uncompiled, since hooks do not see inside them.

    Args:
        model: the model.
        mode: "train" or "eval", of batch norm and dropout.
        dtype: the precision of the evaluation.
        mask, regrow, prunable, forward, seed: see `View`.
    """
    model = own_network(model)
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
    """The gradient of a value with respect to each weight.

    Args:
        value: one number, as a loss.
        weights: the weights by name, for messages.
        create_graph: whether the gradients can be differentiated again.

    Returns:
        One tensor for each weight; 0, with an UnusedWarning, where the value does not depend on it.

    Raises:
        TombolaError: the value depends on none of the weights.
    """
    inputs = list(weights.values())
    gradients: Sequence[Tensor | None] = [None] * len(inputs)
    if value.requires_grad:
        gradients = torch.autograd.grad(value, inputs, create_graph=create_graph, allow_unused=True)
    unused = [name for name, gradient in zip(weights, gradients, strict=True) if gradient is None]
    if len(unused) == len(inputs):
        raise TombolaError(
            f"the network's output depends on no prunable weight, as '{unused[0]}', so that nothing can be ranked; "
            "check how it is called, and that neither outputs nor loss are detached"
        )
    if unused:
        names = ", ".join(f"'{name}'" for name in unused)
        warnings.warn(
            f"the network's output does not depend on {names}, which therefore scores 0; leave it out with "
            f"Prunable(exclude={tuple(unused)})",
            UnusedWarning,
            stacklevel=2,
        )
    return [torch.zeros_like(w) if g is None else g for w, g in zip(inputs, gradients, strict=True)]


def check_some_nonzero(gradients: list[Tensor], network: Pure) -> list[Tensor]:
    """Return the gradients unchanged. Raises TombolaError, which names layers without weights, if all of them are 0."""
    if not any(gradient.any() for gradient in gradients):
        empty = ", ".join(f"'{name}'" for name, weight in network.weights.items() if not weight.any())
        raise TombolaError(
            "the gradient of every prunable weight is 0, so that nothing can be ranked; "
            + (f"{empty} is 0 throughout: give floor=1 or a higher density" if empty else "check the loss and the data")
        )
    return gradients


def mean_gradients(network: Pure, batches: Sequence[Batch], loss: Loss) -> list[Tensor]:
    """The gradient of the mean loss over all samples of the batches.

    Args:
        network: the network.
        batches: (inputs, targets); they may differ in size.
        loss: the mean loss of a batch.

    Returns:
        One tensor for each prunable weight.
    """
    samples = sum(batch_size(batch) for batch in batches)
    totals = [torch.zeros_like(weight) for weight in network.weights.values()]
    for batch in batches:
        share = batch_size(batch) / samples
        torch._foreach_add_(totals, gradients_of(loss_of(network, batch, loss) * share, network.weights))
    return check_some_nonzero(totals, network)


def loss_of(network: Pure, batch: Batch, loss: Loss) -> Tensor:
    """The loss of a batch, with its targets moved to the network's device."""
    inputs, targets = batch
    outputs = network(inputs)
    device = next(iter(network.weights.values())).device
    return loss(outputs, targets.to(device) if isinstance(targets, Tensor) else targets)


def first_batches(batches: Batches, count: int, score: str) -> list[Batch]:
    """The first `count` batches, or fewer. Raises TombolaError, which names the score, if there is none."""
    first = [checked_batch(batch) for batch in islice(batches, count)]
    if not first:
        raise TombolaError(
            f"the score '{score}' needs data and got no batch; give batches of (inputs, targets) and a loss"
        )
    return first


def required_loss(loss: Loss | None, score: str) -> Loss:
    """The loss. Raises TombolaError, which names the score, if it is None."""
    if loss is None:
        raise TombolaError(f"the score '{score}' needs a loss; give one, as torch.nn.functional.cross_entropy")
    return loss


def batch_size(batch: Batch) -> int:
    """The number of samples in a batch: the length of its first input tensor.

    Raises:
        TombolaError: if its inputs hold neither tensor nor array.

    Examples:
        >>> batch_size(({"ids": torch.ones(8, 40), "attention": torch.ones(8, 40)}, torch.ones(8)))
        8
    """
    samples = samples_in(batch[0])
    if samples is None:
        raise TombolaError(
            f"a batch's inputs are {type(batch[0]).__name__} and hold no tensor; give batches of (inputs, targets)"
        )
    return samples
