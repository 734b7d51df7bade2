"""Linear layers and ReLUs of all members at once: forward and backward as batched products into buffers that stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad_and_value, vmap

from tombola.scores import forward
from tombola.tickets.torch_private import is_hooked
from tombola.training.identities import unwrap
from tombola.training.task import Task, binary_cross_entropy, smoothed

LossGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Outputs (members, classes, batch) and targets (members, batch) → losses (members,), gradients of the outputs."""


@dataclass(frozen=True)
class StackedLinear:
    """A linear layer by its parameters' names; relu: whether one follows."""

    weight: str
    bias: str | None
    relu: bool


def layers_of(task: Task, model: nn.Module) -> list[StackedLinear] | None:
    """A network's layers if it is nothing but linear layers with ReLUs between them; None if it is anything else."""
    if unwrap(task, "forward") is not forward or type(model) is not nn.Sequential:
        return None
    layers: list[StackedLinear] = []
    for name, module in model.named_modules(remove_duplicate=False):
        if is_hooked(module):
            return None
        if type(module) is nn.Linear:
            layers.append(
                StackedLinear(f"{name}.weight", f"{name}.bias" if module.bias is not None else None, relu=False)
            )
        elif type(module) is nn.ReLU and layers:
            layers[-1] = StackedLinear(layers[-1].weight, layers[-1].bias, relu=True)
        elif type(module) is nn.Flatten and not layers and (module.start_dim, module.end_dim) == (1, -1):
            continue
        elif type(module) not in (nn.Sequential, nn.Identity):
            return None
    names = [name for layer in layers for name in (layer.weight, layer.bias) if name]
    return layers if layers and names == [name for name, _ in model.named_parameters()] else None


@dataclass(frozen=True)
class _Buffers:
    """Room for batches of one size: activations of each layer, and what is passed back to all but the last."""

    active: list[Tensor]
    passed: list[Tensor]

    @staticmethod
    def of(weights: list[Tensor], size: int) -> _Buffers:
        active = [weight.new_empty(*weight.shape[:2], size) for weight in weights]
        room = [weights[0].new_empty(max(own.numel() for own in active)) for _ in range(2)]
        return _Buffers(active, [room[at % 2][: own.numel()].view_as(own) for at, own in enumerate(active[:-1])])


class Chain:
    """A multilayer perceptron of each member, its activations laid out (members, units, batch)."""

    def __init__(
        self,
        layers: list[StackedLinear],
        loss: LossGradient,
        values: Mapping[str, Tensor],
        grads: Mapping[str, Tensor],
    ) -> None:
        self.buffers: dict[str, Tensor] = {}
        self._layers, self._loss = layers, loss
        self._weights = [values[layer.weight] for layer in layers]
        self._biases = [values[layer.bias].unsqueeze(-1) if layer.bias else None for layer in layers]
        self._weight_grads = [grads[layer.weight] for layer in layers]
        self._bias_grads = [grads[layer.bias] if layer.bias else None for layer in layers]
        self._kept: dict[int, _Buffers] = {}

    def gradients(self, inputs: Tensor, targets: Tensor, /) -> Tensor:
        room = self._buffers(inputs.shape[1])
        active, passed = room.active, room.passed
        lowest = below = inputs.flatten(2).transpose(1, 2)
        for layer, weight, bias, out in zip(self._layers, self._weights, self._biases, active, strict=True):
            below = _linear(weight, bias, below, layer.relu, out)
        losses, gradient = self._loss(active[-1], targets)
        if self._layers[-1].relu:
            gradient = _through_relu(gradient, active[-1])
        for at in reversed(range(len(self._layers))):
            before = active[at - 1] if at else lowest
            torch.bmm(gradient, before.transpose(1, 2), out=self._weight_grads[at])
            if self._bias_grads[at] is not None:
                torch.sum(gradient, -1, out=self._bias_grads[at])
            if at:
                gradient = _through_linear(self._weights[at], gradient, passed[at - 1])
                if self._layers[at - 1].relu:
                    gradient = _through_relu(gradient, active[at - 1])
        return losses

    def outputs(self, inputs: Tensor, /) -> Tensor:
        weight, bias = self._weights[0], self._biases[0]
        below = (weight.flatten(0, 1) @ inputs.flatten(1).T).view(*weight.shape[:2], -1)
        below = below if bias is None else below.add_(bias)
        below = below.relu_() if self._layers[0].relu else below
        for layer, weight, bias in list(zip(self._layers, self._weights, self._biases, strict=True))[1:]:
            below = _linear(weight, bias, below, layer.relu)
        return below.transpose(1, 2).contiguous()

    def _buffers(self, size: int) -> _Buffers:
        if size not in self._kept:
            self._kept[size] = _Buffers.of(self._weights, size)
        return self._kept[size]


def _linear(weight: Tensor, bias: Tensor | None, below: Tensor, relu: bool, out: Tensor | None = None) -> Tensor:
    above = torch.bmm(weight, below, out=out) if bias is None else torch.baddbmm(bias, weight, below, out=out)
    return above.relu_() if relu else above


def _through_linear(weight: Tensor, gradient: Tensor, out: Tensor) -> Tensor:
    """A single unit has nothing to sum over, and multiplication is then the faster product."""
    product = torch.mul if weight.shape[1] == 1 else torch.bmm
    return product(weight.transpose(1, 2), gradient, out=out)


def _through_relu(gradient: Tensor, active: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward.grad_input(gradient, active, 0, grad_input=gradient)


def loss_gradient(task: Task, smoothing: float, targets: Tensor, classes: int) -> LossGradient:
    """The task's loss of each member and its gradient: by hand for the usual ones, else by vmap.

    targets: all that are trained on, since some that are no class, as −100, are for cross-entropy to leave out.
    """
    loss = unwrap(task, "loss")
    numbers = targets.ndim == 1 and not targets.is_floating_point()
    if loss is F.cross_entropy and numbers and bool(((targets >= 0) & (targets < classes)).all()):
        return lambda outputs, targets: _cross_entropy(outputs, targets, smoothing)
    if loss is binary_cross_entropy and not smoothing:
        return _binary_cross_entropy
    each = vmap(grad_and_value(smoothed(task.loss, smoothing)))

    def by_vmap(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        gradients, losses = each(outputs.transpose(1, 2), targets)
        return losses, gradients.transpose(1, 2).contiguous()

    return by_vmap


def _cross_entropy(outputs: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    logs, at = F.log_softmax(outputs, 1), targets.unsqueeze(1)
    losses = -logs.gather(1, at).mean((1, 2))
    if smoothing:
        losses = (1 - smoothing) * losses - smoothing * logs.mean((1, 2))
    gradient = logs.exp_()
    gradient.scatter_add_(1, at, torch.full_like(at, smoothing - 1, dtype=gradient.dtype))
    return losses, gradient.sub_(smoothing / outputs.shape[1]).div_(outputs.shape[2])


def _binary_cross_entropy(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    wanted = targets.to(outputs.dtype).unsqueeze(1)
    losses = F.softplus(outputs).addcmul_(outputs, wanted, value=-1).mean((1, 2))
    return losses, torch.sigmoid(outputs).sub_(wanted).div_(outputs.shape[2])
