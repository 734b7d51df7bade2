"""Any network, computed for all members at once by `torch.func`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from tombola.structure import meta_twin
from tombola.tickets import bare, paths_of
from tombola.training.task import Task


class _Called(nn.Module):
    """A module whose forward pass is the task's, since `functional_call` takes modules alone."""

    def __init__(self, task: Task, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._task = task

    def forward(self, inputs: Any) -> Any:
        return self._task.forward(self.network, inputs)


class Mapped:
    """A network of each member, vectorised over their values.

    Args:
        task: gives the forward pass.
        model: one member's network.
        loss: of outputs and targets.
        values: parameters by name, (members, *shape).
        grads: where gradients are written, by name; views of `flat_grads`.
        flat_grads: all gradients in one buffer.
        buffers: the members' buffers by name, (members, *shape).
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        values: Mapping[str, Tensor],
        grads: Mapping[str, Tensor],
        flat_grads: Tensor,
        buffers: dict[str, Tensor],
    ) -> None:
        self.buffers = buffers
        self._called = _Called(task, bare(meta_twin(model)))  # its own values are never used
        self._paths = paths_of(self._called.network)
        self._loss, self._flat_grads = loss, flat_grads
        self._leaves = {name: view.detach().requires_grad_() for name, view in values.items()}
        for name, leaf in self._leaves.items():
            leaf.grad = grads[name]  # backward adds into a gradient that is there, and so into the flat buffer

    def gradients(self, inputs: Tensor, targets: Tensor, /) -> Tensor:
        self._called.train()
        self._flat_grads.zero_()

        def loss(values: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
            return self._loss(self._outputs(values, buffers, inputs), targets)

        with torch.enable_grad():
            losses = vmap(loss)(self._leaves, self.buffers, inputs, targets)
            losses.sum().backward()  # of the sum, since no member's loss depends on another member's values
        return losses.detach()

    def outputs(self, inputs: Tensor, /) -> Tensor:
        self._called.eval()
        return vmap(self._outputs, in_dims=(0, 0, None))(self._leaves, self.buffers, inputs)

    def _outputs(self, values: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor) -> Tensor:
        tensors = {f"network.{self._paths[name]}": tensor for name, tensor in {**values, **buffers}.items()}
        return functional_call(self._called, tensors, (inputs,))
