"""A network with a trainable coefficient on each head and hidden neuron, folded into the weights that read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tombola.scores import Called
from tombola.structure import Units
from tombola.tickets import called_with, paths_of
from tombola.training import Observer, State, Task

Record = Literal["after", "before"]
"""Which coefficients a step records: those after the optimizer's step (EarlyBERT's SQuAD code), or before it (GLUE)."""


class CoefficientModel(nn.Module):
    """A model that trains as it is, with a coefficient c on each unit: what reads a unit reads c times as much of it.

    Multiplying the weights that read a unit is multiplying the unit, and takes no pass over activations.

    Args:
        task: says how the model is called on inputs.
        model: the network.
        gates: the units, each with the weights that read it, as `TransformerUnits.gates`.
    """

    def __init__(self, task: Task, model: nn.Module, gates: Units) -> None:
        super().__init__()
        self.called = Called(model, task.forward)
        self.names = tuple(group.name for group in gates.groups)
        like, paths = next(model.parameters()), paths_of(model)
        self.coefficients = nn.ParameterList([nn.Parameter(torch.ones(group.size).to(like)) for group in gates.groups])
        self._readers: list[tuple[str, int, int]] = []
        for number, group in enumerate(gates.groups):
            for part in group.slices:
                path, dim = f"model.{paths[part.parameter]}", part.dim or 0
                owner = torch.full((self.called.get_parameter(path).shape[dim],), group.size)
                for unit, positions in enumerate(part.positions):
                    owner[list(positions)] = unit
                self.register_buffer(f"owner_{len(self._readers)}", owner.to(like.device), persistent=False)
                self._readers.append((path, number, dim))

    @property
    def values(self) -> dict[str, Tensor]:
        """A copy of the coefficients, one vector a group."""
        return {name: own.detach().cpu().clone() for name, own in zip(self.names, self.coefficients, strict=True)}

    def _scaled(self) -> Iterator[tuple[str, Tensor]]:
        for place, (path, number, dim) in enumerate(self._readers):
            weight, owner = self.called.get_parameter(path), self.get_buffer(f"owner_{place}")
            own = self.coefficients[number]
            # What no unit owns is multiplied by 1.
            factors = torch.cat([own, own.new_ones(1)])[owner]
            yield path, weight * factors.view([-1 if axis == dim else 1 for axis in range(weight.ndim)])

    def forward(self, inputs: Any) -> Any:
        return called_with(self.called, dict(self._scaled()), inputs)


class Recorder(Observer):
    """Trains coefficients under a penalty on their size, and ends the search after some steps, with a record of them.

    Args:
        model: holds the coefficients.
        epochs: after how many the search ends: rounded to steps, at least one.
        penalty: λ of λ Σ|c|, which is added to the loss.
        record: which coefficients of the last step are recorded.
    """

    def __init__(self, model: CoefficientModel, epochs: float, penalty: float, record: Record) -> None:
        self.recorded: dict[str, Tensor] = {}
        self._model, self._epochs, self._penalty, self._record = model, epochs, penalty, record
        self._steps = 0

    def before_step(self, state: State) -> None:
        for own in self._model.coefficients:
            if own.grad is not None:
                own.grad.add_(own.detach().sign(), alpha=self._penalty)
        if self._record == "before" and self._steps + 1 == self._last(state):
            self.recorded = self._model.values

    def after_step(self, state: State) -> bool:
        self._steps += 1
        ends = self._steps == self._last(state)
        if ends and self._record == "after":
            self.recorded = self._model.values
        return ends

    def _last(self, state: State) -> int:
        return max(1, round(self._epochs * state.steps_per_epoch))

    def state_dict(self) -> dict[str, Any]:
        return {"recorded": self.recorded, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.recorded, self._steps = state["recorded"], state["steps"]
