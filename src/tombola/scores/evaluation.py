"""Evaluating a network at given weights without changing it."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.nested import mapped, samples_in
from tombola.scores.types import Batch, Batches, Forward, Loss, checked_batches, forward
from tombola.structure import Mode, Prunable, in_mode, own_random_state
from tombola.tickets import (
    HeldTensors,
    Mask,
    buffers_of,
    check_fits,
    check_whole,
    device_of,
    eager,
    is_spread,
    own_network,
    parameters_of,
    recomputable,
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
        self._forward = forward
        self._device, self._dtype = device_of(model), dtype
        parameters = parameters_of(model)
        if mask is not None:
            check_fits(mask, parameters)
        self._spread = any(is_spread(parameter) for parameter in parameters.values())
        scored = {name: whole(parameter) for name, parameter in prunable(model).items()}
        self.weights: dict[str, Tensor] = {}
        for name, parameter in scored.items():
            if mask is None or name not in mask:
                value = parameter.to(precision_of(parameter, dtype), copy=True)
            else:
                value = torch.where(mask[name].to(parameter.device), parameter, 0.0)
                value = value.to(precision_of(parameter, dtype))
            self.weights[name] = value.requires_grad_()
        values = scored if regrow else self.weights
        # Without regrow, values share their memory with the weights: one copy is enough.
        self.values = {n: value.detach().to(precision_of(value, dtype), copy=regrow) for n, value in values.items()}
        # What is spread over processes is not called, and so not gathered for nothing.
        fixed = {
            name: self._cast(p.detach()) for name, p in parameters.items() if not self._spread and name not in scored
        }
        buffers = buffers_of(model)
        self._buffers = tuple(buffers)
        # Batch norm in training mode writes into its buffers.
        copies = {name: b.detach().to(precision_of(b, dtype), copy=True) for name, b in buffers.items()}
        self.others = {**fixed, **copies}
        self._own = {name: id(tensor) for name, tensor in {**parameters, **buffers}.items()}
        self._tensors, self._last = HeldTensors(model), {}

    def __call__(self, inputs: Any) -> Any:
        if self._spread:
            check_whole(self.model, "a score that calls it")
        values = {**self.weights, **self.others}
        # What backward computes again begins with the buffers that this pass begins with, and leaves them as it did.
        first = {name: values[name].clone() for name in self._buffers} if torch.is_grad_enabled() else {}
        self._swap(values)
        outputs = self._forward(self.model, self._cast(inputs))
        self._last = {**values, **first}
        self._swap(self._last)
        return outputs

    def first_buffers(self) -> dict[str, Tensor]:
        """Copies of the buffers that the last call began with, from before its first backward pass."""
        return {name: self._last[name].clone() for name in self._buffers}

    def begin_again(self, buffers: Mapping[str, Tensor]) -> None:
        """Before a second backward pass: let what it computes again begin with these buffers, as the first one did."""
        self._swap({**self._last, **buffers})

    def _swap(self, values: Mapping[str, Tensor]) -> None:
        self._tensors.swap({self._own[name]: value for name, value in values.items()})

    def restore(self) -> None:
        """Give the model its own tensors back; until then the last call's stand in their place."""
        self._tensors.restore()

    def _cast(self, value: Any) -> Any:
        return mapped(value, lambda tensor: tensor.to(self._device, precision_of(tensor, self._dtype)))


def precision_of(tensor: Tensor, dtype: torch.dtype) -> torch.dtype:
    """The type in which a tensor is computed with: a real precision, its complex counterpart, or the tensor's own.

    Examples:
        >>> precision_of(torch.zeros(2, dtype=torch.complex64), torch.float64)
        torch.complex128
    """
    if tensor.is_complex():
        return dtype.to_complex()
    return dtype if tensor.is_floating_point() else tensor.dtype


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
    if device.type == "meta":
        raise TombolaError(
            "the network is on the device meta, where its weights have no values; move it with to_empty(device=…) and "
            "load its weights first"
        )
    with (
        own_random_state(device, seed),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        eager(),
        _differentiable_recurrence(model, device),
        recomputable(),
        in_mode(model, mode),
    ):
        network = Pure(model, forward, mask, regrow, prunable, dtype)
        try:
            yield network
        finally:
            network.restore()


def _differentiable_recurrence(model: nn.Module, device: torch.device) -> AbstractContextManager[object]:
    """Inside, recurrent layers on CUDA have gradients in evaluation mode too, and second ones; cuDNN's have neither."""
    recurrent = device.type == "cuda" and any(isinstance(module, nn.RNNBase) for module in model.modules())
    return torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()


def gradients_of(value: Tensor, weights: Mapping[str, Tensor], *, create_graph: bool = False) -> list[Tensor]:
    """The gradient of a value with respect to each weight.

    Args:
        value: one number, as a loss.
        weights: the weights by name, for messages.
        create_graph: whether the gradients can be differentiated again.

    Returns:
        One tensor for each weight; 0, with an UnusedWarning, where the value does not depend on it.

    Raises:
        TombolaError: the value is more than one number, or depends on none of the weights.
    """
    if value.numel() != 1:
        raise TombolaError(
            f"the loss gives a tensor of shape {tuple(value.shape)} and not one number; give its mean, as with "
            "reduction='mean'"
        )
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


def check_real(weights: Mapping[str, Tensor], what: str) -> None:
    """Raise TombolaError, which names the first complex weight, if there is one; `what` is for real weights only."""
    for name, weight in weights.items():
        if weight.is_complex():
            raise TombolaError(
                f"{what} is for real weights, and '{name}' is complex; use magnitude, or leave it out: "
                f"Prunable(exclude=('{name}',))"
            )


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
    """The loss of a batch, with its targets, in any nest, moved to the network's device."""
    inputs, targets = batch
    outputs = network(inputs)
    device = next(iter(network.weights.values())).device
    return loss(outputs, mapped(targets, lambda tensor: tensor.to(device)))


def first_batches(batches: Batches, count: int, score: str) -> list[Batch]:
    """The first `count` batches, or fewer. Raises TombolaError, which names the score, if there is none."""
    first = list(islice(checked_batches(batches), count))
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
