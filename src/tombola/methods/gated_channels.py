"""A network whose channels follow from trainable scores, evaluated without touching its classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tombola.errors import TombolaError
from tombola.methods.masked_model import MaskedModel, Weigh
from tombola.scores import Called
from tombola.structure import UnitGroup
from tombola.tickets import paths_of
from tombola.training import Task


class GatedModel(MaskedModel):
    """A model with one score a channel, called with all that the channels own, in their order, times their gates.

    The model's own parameters are frozen; a gate is 1 or 0, `weigh(scores, ones)`, so that gradients reach the scores
    as those of single weights do, summed over the channel.
    """

    def __init__(
        self, task: Task, model: nn.Module, groups: Iterable[UnitGroup], start: Callable[[Tensor], Tensor], weigh: Weigh
    ) -> None:
        nn.Module.__init__(self)
        self.called = Called(model.requires_grad_(requires_grad=False), task.forward)
        own = [group for group in groups if any(part.scored for part in group.slices)]
        if not own:
            raise TombolaError("the network has no channel that could be removed; search single weights instead")
        paths = paths_of(model)
        self.names = tuple(group.name for group in own)
        like = next(model.parameters())
        self.alive = nn.ParameterList([nn.Parameter(torch.ones(g.size).to(like), requires_grad=False) for g in own])
        self.scores = nn.ParameterList([nn.Parameter(start(one).to(one)) for one in self.alive])
        self._weigh = weigh
        self._gated = [
            (f"model.{paths[part.parameter]}", number, part.dim or 0)
            for number, group in enumerate(own)
            for part in group.slices
        ]

    @property
    def weights(self) -> list[Tensor]:
        """What the scores are the scores of: 1 for each channel, 0 for one that was removed."""
        return list(self.alive)

    def forward(self, inputs: Any) -> Any:
        gates, values = self._weigh(list(self.scores), self.weights), {}
        for path, number, dim in self._gated:
            value = self.called.get_parameter(path)
            shape = [1] * value.ndim
            shape[dim] = -1
            values[path] = value * gates[number].view(shape)
        return functional_call(self.called, values, (inputs,))
