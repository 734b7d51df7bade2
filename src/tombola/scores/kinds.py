"""Scores of three kinds, each with one shape: of weights, of units, of residual blocks.

The bases here do what all of one kind share: they read the data, evaluate the network at its values or at weights ·
mask, in a mode and a precision, and leave it as it was. A score's own class says its mathematics, and what it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.scores.evaluation import Pure, mean_gradients, needed, take, untouched
from tombola.scores.types import Batch, Batches, Loss, Scores, View
from tombola.structure import NM, Channels, Filters, Granularity, Mode, PartUnits, QueryKey, Weights

Kind = Literal["weight", "unit", "block"]
"""What a score says the worth of.

Of weights: one tensor a parameter, of its shape. Of units: one vector a layer, a number a filter or neuron. Of blocks:
a number each.
"""

Needs = Literal["", "an input's shape", "data", "training"]
"""What a score reads: nothing, the shape of an input, batches, or the steps of a training."""


def check_goes_with(score: Any, granularity: Granularity) -> None:
    """TombolaError where what a score says the worth of is nothing that the granularity removes."""
    kind = getattr(score, "kind", "weight")
    if kind == "unit" and isinstance(granularity, Weights | NM | QueryKey):
        raise TombolaError(
            f"the score '{score.name}' is of whole filters and neurons, not of single weights; use tb.Channels()"
        )
    if kind == "block" and isinstance(granularity, Weights | NM | QueryKey | Channels | PartUnits | Filters):
        raise TombolaError(
            f"the score '{score.name}' is of residual blocks, and does not go with {granularity.name}s; "
            "use tb.structure.Blocks()"
        )


class Data:
    """What a score reads: batches, a loss, and a seed for all that is random."""

    def __init__(self, score: str, batches: Iterable[Batch], loss: Loss | None, view: View) -> None:
        self.batches = batches
        self.view = view
        self.seed = view.get("seed", 0)
        self._score, self._loss = score, loss

    @property
    def loss(self) -> Loss:
        """The loss; TombolaError if none was given."""
        return needed(self._loss, self._score)


@dataclass(frozen=True)
class MeasuredScore:
    """What the bases share; `measure` is the score's mathematics on a network that may be called and not changed."""

    name: ClassVar[str]
    needs: ClassVar[Needs] = ""
    needs_loss: ClassVar[bool] = False
    precision: ClassVar[torch.dtype] = torch.float32

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def needs_data(self) -> bool:
        return self.needs != ""

    @property
    def kind(self) -> Kind:
        """What it says the worth of."""
        raise NotImplementedError

    @property
    def mode(self) -> Mode:
        """Of batch norm and dropout while it is scored."""
        return "eval"

    @property
    def reads(self) -> int:
        """How many batches it reads."""
        return getattr(self, "batches", 1)

    def data(self, batches: Batches, loss: Loss | None, view: View) -> Data:
        """What it reads of what it is given; TombolaError if it lacks a loss or batches that it needs."""
        if self.needs_loss:
            needed(loss, self.name)
        taken = take(batches, self.reads, self.name) if self.needs_data else batches
        return Data(self.name, taken, loss, view)

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores:
        data = self.data(batches, loss, view)
        with self.evaluated(model, view) as network:
            return self.measure(network, data)

    def evaluated(self, model: nn.Module, view: View) -> Any:
        """The network at the values that the view says, for as long as it is scored."""
        settings: Any = {"mode": self.mode, "dtype": self.precision, **view}
        return untouched(model, **settings)

    def measure(self, network: Pure, data: Data) -> Scores:
        """The scores, larger = keep."""
        raise NotImplementedError


@dataclass(frozen=True)
class WeightScore(MeasuredScore):
    """How much is each weight worth: one tensor a prunable parameter, of its shape."""

    @property
    def kind(self) -> Kind:
        return "weight"


@dataclass(frozen=True)
class GradientScore(WeightScore):
    """A score of each weight and its gradient of the mean loss over all samples of some batches.

    batches: how many of the batches given are averaged, signs and all. batch_norm: the mode of batch norm and dropout
    while it is scored.
    """

    batches: int = 1
    batch_norm: Mode = "train"

    needs: ClassVar[Needs] = "data"
    needs_loss: ClassVar[bool] = True

    @property
    def mode(self) -> Mode:
        return self.batch_norm

    def measure(self, network: Pure, data: Data) -> Scores:
        gradients = mean_gradients(network, list(data.batches), data.loss)
        values = network.values.items()
        return {name: self.worth(value, own) for (name, value), own in zip(values, gradients, strict=True)}

    def worth(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """What weights with these gradients are worth, element by element."""
        raise NotImplementedError


@dataclass(frozen=True)
class GatheredScore(WeightScore):
    """A score of what it gathers of the gradients of some parameters, step by step, while a network trains."""

    needs: ClassVar[Needs] = "training"

    @property
    def needs_training(self) -> bool:
        return True

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores:
        if self.needs_training:
            raise TombolaError(
                f"the score '{self.name}' watches a network train; use it in tb.Iterative, or in tb.OneShot with "
                "after=1"
            )
        return super().__call__(model, batches, loss, **view)

    def note(self, gathered: Tensor, gradient: Tensor, weight: Tensor) -> None:
        """Take a step's gradient of one parameter, at its weights, into what was gathered of it, in place."""
        raise NotImplementedError

    def from_gathered(self, model: nn.Module, gathered: Mapping[str, Tensor], **view: Unpack[View]) -> Scores:
        """The scores from what `note` gathered over a training."""
        with self.evaluated(model, view) as network:
            return self.of_gathered(network, gathered)

    def of_gathered(self, network: Pure, gathered: Mapping[str, Tensor]) -> Scores:
        """The scores of what was gathered, on a network that may be called and not changed."""
        raise NotImplementedError


@dataclass(frozen=True)
class UnitScore(MeasuredScore):
    """How much is each unit worth: one vector a layer, by the name of its weight, a number a filter or neuron."""

    @property
    def kind(self) -> Kind:
        return "unit"


@dataclass(frozen=True)
class BlockScore(MeasuredScore):
    """How much is each residual block worth: one tensor of one number a block, by its name."""

    @property
    def kind(self) -> Kind:
        return "block"

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores:
        return self.worths(model, self.data(batches, loss, view))

    def worths(self, model: nn.Module, data: Data) -> Scores:
        """The scores of the blocks of a network, which is left as it was; larger = keep."""
        raise NotImplementedError
