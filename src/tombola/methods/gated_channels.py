"""A network whose channels follow from trainable scores, evaluated without touching its classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.methods.masked_model import SEARCH, MaskedModel, Weigh
from tombola.scores import Called, check_real
from tombola.structure import UnitGroup
from tombola.tickets import called_with, parameters_of, paths_of
from tombola.training import Task


class GatedModel(MaskedModel):
    """A model with one score for each channel, which computes with all that the channels own times their gates.

    The model's own parameters are frozen. A gate is 1 or 0, `weigh(scores, ones)`. Gradients reach the scores as they
    reach those of single weights, summed over the channel.

    Args:
        task: says how the model is called on inputs.
        model: the network; its parameters no longer require gradients.
        groups: the channels, and the slices of parameters that they own.
        start: makes the first scores from a tensor of ones.
        weigh: makes the gates, from the scores and the ones of all groups.
    """

    def __init__(
        self, task: Task, model: nn.Module, groups: Iterable[UnitGroup], start: Callable[[Tensor], Tensor], weigh: Weigh
    ) -> None:
        nn.Module.__init__(self)  # Not MaskedModel's, which would make one score for each weight.
        self.called = Called(model.requires_grad_(requires_grad=False), task.forward)
        scored_groups = [group for group in groups if any(part.scored for part in group.slices)]
        if not scored_groups:
            raise TombolaError("the network has no channel that could be removed; search single weights instead")
        check_real(parameters_of(model), SEARCH)
        paths = paths_of(model)
        self.names = tuple(group.name for group in scored_groups)
        like = next(model.parameters())
        self.alive = nn.ParameterList(
            [nn.Parameter(torch.ones(g.size).to(like), requires_grad=False) for g in scored_groups]
        )
        self.scores = nn.ParameterList([nn.Parameter(start(ones).to(ones)) for ones in self.alive])
        self._weigh = weigh
        self._gated: list[tuple[str, int, int]] = []
        for number, group in enumerate(scored_groups):
            for part in group.slices:
                path, dim = f"model.{paths[part.parameter]}", part.dim or 0
                owner = torch.empty(self.called.get_parameter(path).shape[dim], dtype=torch.long)
                for unit, positions in enumerate(part.positions):
                    owner[list(positions)] = unit
                self.register_buffer(f"owner_{len(self._gated)}", owner.to(like.device), persistent=False)
                self._gated.append((path, number, dim))

    @property
    def weights(self) -> list[Tensor]:
        """What the scores belong to: 1 for each channel, 0 for a removed one."""
        return list(self.alive)

    def forward(self, inputs: Any) -> Any:
        gates, values = self._weigh(list(self.scores), self.weights), {}
        for place, (path, number, dim) in enumerate(self._gated):
            value = self.called.get_parameter(path)
            shape = [1] * value.ndim
            shape[dim] = -1
            values[path] = value * gates[number][self.get_buffer(f"owner_{place}")].view(shape)
        return called_with(self.called, values, inputs)
