"""The moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from tombola.tickets import Handle, Mask, device_of, parameters_of, put_values, tensors_of


class Average:
    """An exponential moving average of a network's weights and statistics, kept beside the network.

    Whole numbers and truth values among the buffers are the network's own, and so are weights that a mask removes: they
    stay at zero, or where they are frozen.

    Args:
        model: the network, at the values where the average begins.
        attached: the mask that the network keeps to.
        decay: how much of the average a step keeps. Step n keeps n / (9 + n) if that is less, so that a short training
            does not end near its beginning.
    """

    def __init__(self, model: nn.Module, attached: Handle, decay: float) -> None:
        self._model, self._attached, self._decay = model, attached, decay
        self._mask: Mask | None = None
        self.updates = 0
        self.values = {name: tensor.clone() for name, tensor in tensors_of(model).items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network's values of now."""
        self.updates += 1
        average = get_ema_multi_avg_fn(min(self._decay, self.updates / (9 + self.updates)))
        averaged, now = [], []
        for name, tensor in tensors_of(self._model).items():
            own = self.values.get(name)
            if own is None or own.shape != tensor.shape:  # a buffer that follows the batch
                self.values[name] = tensor.clone()
            elif tensor.is_floating_point() or tensor.is_complex():
                averaged.append(own)
                now.append(tensor)
            else:
                own.copy_(tensor)
        if averaged:
            average(averaged, now, self.updates)
        self._follow()

    def _follow(self) -> None:
        """Take the network's own values where the mask, if it is another one by now, keeps no weight."""
        mask = self._attached.mask
        if mask is self._mask:
            return
        self._mask = mask
        names = {parameter: name for name, parameter in parameters_of(self._model).items()}
        tied = parameters_of(self._model, remove_duplicate=False)
        for name in mask:
            own, parameter = self.values[names[tied[name]]], tied[name].detach()
            own.copy_(torch.where(mask[name].to(own.device), own, parameter))

    @contextmanager
    def in_place(self) -> Generator[None]:
        """Inside, the network has the averaged values."""
        trained = {name: tensor.clone() for name, tensor in tensors_of(self._model).items()}
        self.put()
        try:
            yield
        finally:
            put_values(self._model, trained)

    def put(self) -> None:
        """Give the network the averaged values, if there are any yet."""
        if self.updates:
            self._follow()
            put_values(self._model, self.values)

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        here, usual = tensors_of(self._model), torch.empty(0, device=device_of(self._model))
        self.values = {name: value.to(here.get(name, usual).device) for name, value in state["values"].items()}
        self.updates = state["updates"]
