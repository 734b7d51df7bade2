"""Multilayer perceptrons of all members at once: forward and backward as batched products into buffers that stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad_and_value, vmap

from tombola.scores import forward
from tombola.tickets.torch_private import is_hooked
from tombola.training.losses import binary_cross_entropy, smoothed
from tombola.training.task import Task, unwrap

LossGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Outputs (members, classes, batch) and targets (members, batch) → losses (members,), gradients of the outputs."""


@dataclass(frozen=True)
class StackedLinear:
    """A linear layer of all members.

    Args:
        weight: the parameter's name.
        bias: the parameter's name; None without one.
        relu: whether a ReLU follows.
    """

    weight: str
    bias: str | None
    relu: bool


def layers_of(task: Task, model: nn.Module) -> list[StackedLinear] | None:
    """The layers of a multilayer perceptron.

    Args:
        task: its forward pass must be the plain one.
        model: one member's network.

    Returns:
        The layers in order; None for a network of anything else than linear layers with ReLUs between them.
    """
    if unwrap(task, "forward") is not forward or type(model) is not nn.Sequential:
        return None
    layers: list[StackedLinear] = []
    for name, module in model.named_modules(remove_duplicate=False):
        if is_hooked(module):  # hooks would not run
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
    # Tied layers and parameters outside the layers show up as a difference here.
    return layers if layers and names == [name for name, _ in model.named_parameters()] else None


@dataclass(frozen=True)
class _Buffers:
    """Memory for batches of one size.

    activations: of each layer; gradients: of the activations, of all layers but the last.
    """

    activations: list[Tensor]
    gradients: list[Tensor]

    @staticmethod
    def of(weights: list[Tensor], size: int) -> _Buffers:
        activations = [weight.new_empty(*weight.shape[:2], size) for weight in weights]
        # Backward needs two neighbouring layers' gradients at a time, so that two buffers take turns.
        turns = [weights[0].new_empty(max(layer.numel() for layer in activations)) for _ in range(2)]
        gradients = [turns[at % 2][: layer.numel()].view_as(layer) for at, layer in enumerate(activations[:-1])]
        return _Buffers(activations, gradients)


class Chain:
    """A multilayer perceptron of each member; activations have the shape (members, units, batch).

    Args:
        layers: as `layers_of` finds them.
        loss: gives the losses and the gradients of the outputs.
        values: parameters by name, (members, *shape).
        grads: where gradients are written, by name, (members, *shape).
    """

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
        self._buffers: dict[int, _Buffers] = {}

    def gradients(self, inputs: Tensor, targets: Tensor, /) -> Tensor:
        buffers = self._buffers_for(inputs.shape[1])
        activations = buffers.activations
        inputs = hidden = inputs.flatten(2).transpose(1, 2)
        for layer, weight, bias, out in zip(self._layers, self._weights, self._biases, activations, strict=True):
            hidden = _linear(weight, bias, hidden, layer.relu, out)
        losses, gradient = self._loss(activations[-1], targets)
        if self._layers[-1].relu:
            gradient = _relu_backward(gradient, activations[-1])
        for at in reversed(range(len(self._layers))):
            below = activations[at - 1] if at else inputs
            torch.bmm(gradient, below.transpose(1, 2), out=self._weight_grads[at])
            if self._bias_grads[at] is not None:
                torch.sum(gradient, -1, out=self._bias_grads[at])
            if at:
                gradient = _linear_backward(self._weights[at], gradient, buffers.gradients[at - 1])
                if self._layers[at - 1].relu:
                    gradient = _relu_backward(gradient, activations[at - 1])
        return losses

    def outputs(self, inputs: Tensor, /) -> Tensor:
        weight, bias = self._weights[0], self._biases[0]
        # All members see the same inputs, so that one product serves the first layers of all.
        hidden = (weight.flatten(0, 1) @ inputs.flatten(1).T).view(*weight.shape[:2], -1)
        hidden = hidden if bias is None else hidden.add_(bias)
        hidden = hidden.relu_() if self._layers[0].relu else hidden
        for layer, weight, bias in list(zip(self._layers, self._weights, self._biases, strict=True))[1:]:
            hidden = _linear(weight, bias, hidden, layer.relu)
        return hidden.transpose(1, 2).contiguous()

    def _buffers_for(self, size: int) -> _Buffers:
        if size not in self._buffers:
            self._buffers[size] = _Buffers.of(self._weights, size)
        return self._buffers[size]


def _linear(weight: Tensor, bias: Tensor | None, inputs: Tensor, relu: bool, out: Tensor | None = None) -> Tensor:
    outputs = torch.bmm(weight, inputs, out=out) if bias is None else torch.baddbmm(bias, weight, inputs, out=out)
    return outputs.relu_() if relu else outputs


def _linear_backward(weight: Tensor, gradient: Tensor, out: Tensor) -> Tensor:
    # With a single unit there is nothing to sum over, and a plain multiplication is faster.
    product = torch.mul if weight.shape[1] == 1 else torch.bmm
    return product(weight.transpose(1, 2), gradient, out=out)


def _relu_backward(gradient: Tensor, activations: Tensor) -> Tensor:
    """In place: the gradient where the activations are positive, else 0."""
    return torch.ops.aten.threshold_backward.grad_input(gradient, activations, 0, grad_input=gradient)


def loss_gradient(task: Task, smoothing: float, targets: Tensor, classes: int) -> LossGradient:
    """The task's loss of each member with its gradient: written by hand for the usual losses, else by vmap.

    Args:
        task: gives the loss.
        smoothing: label smoothing, from 0 to 1.
        targets: all that members train on. Cross-entropy leaves out some that are no class, as −100; then vmap does it.
        classes: number of outputs.
    """
    loss = unwrap(task, "loss")
    class_numbers = targets.ndim == 1 and not targets.is_floating_point()
    if loss is F.cross_entropy and class_numbers and bool(((targets >= 0) & (targets < classes)).all()):
        return lambda outputs, targets: _cross_entropy(outputs, targets, smoothing)
    if loss is binary_cross_entropy and not smoothing:
        return _binary_cross_entropy
    of_members = vmap(grad_and_value(smoothed(task.loss, smoothing)))

    def by_vmap(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        gradients, losses = of_members(outputs.transpose(1, 2), targets)
        return losses, gradients.transpose(1, 2).contiguous()

    return by_vmap


def _cross_entropy(outputs: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    log_probabilities, classes = F.log_softmax(outputs, 1), targets.unsqueeze(1)
    losses = -log_probabilities.gather(1, classes).mean((1, 2))
    if smoothing:
        losses = (1 - smoothing) * losses - smoothing * log_probabilities.mean((1, 2))
    # The gradient is softmax − smoothed one-hot target, divided by the batch; made in place of the log-probabilities.
    gradient = log_probabilities.exp_()
    gradient.scatter_add_(1, classes, torch.full_like(classes, smoothing - 1, dtype=gradient.dtype))
    return losses, gradient.sub_(smoothing / outputs.shape[1]).div_(outputs.shape[2])


def _binary_cross_entropy(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    labels = targets.to(outputs.dtype).unsqueeze(1)
    losses = F.softplus(outputs).addcmul_(outputs, labels, value=-1).mean((1, 2))
    return losses, torch.sigmoid(outputs).sub_(labels).div_(outputs.shape[2])
