"""The base classes of scores: of weights, of units and of residual blocks.

A base class reads the data, evaluates the network at its values or at weights · mask, and restores it. A score's own
class says what the score needs, and holds its mathematics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.scores.evaluation import Pure, check_real, first_batches, mean_gradients, required_loss, untouched
from tombola.scores.types import Batch, Batches, Loss, Scores, View
from tombola.structure import (
    NM,
    ChannelsAndHeads,
    Filters,
    Granularity,
    Mode,
    PartUnits,
    QueryKey,
    SeparateChannels,
    TransformerParts,
    Weights,
)
from tombola.tickets import batches_of_all, check_network, own_network, same_on_all

Kind = Literal["weight", "unit", "block"]
"""What a score ranks.

A score of weights returns one tensor for each parameter, of its shape. A score of units returns one vector for each
layer, a number for each filter or neuron. A score of blocks returns one number for each block.
"""

Needs = Literal["", "an input's shape", "data", "training"]
"""What a score reads besides the network: nothing, the shape of an input, batches, or the steps of a training."""


def check_goes_with(score: Any, granularity: Granularity) -> None:
    """Check that a granularity removes what a score ranks.

    Args:
        score: a score of weights goes with every granularity.
        granularity: what is removed whole.

    Raises:
        TombolaError: a score of filters with single weights, or a score of blocks with anything but blocks.

    Examples:
        >>> from tombola.scores import RandomBlocks
        >>> from tombola.structure import Channels
        >>> check_goes_with(RandomBlocks(), Channels())
        Traceback (most recent call last):
        tombola.errors.TombolaError: the score 'random-blocks' ranks residual blocks, ...
    """
    kind = getattr(score, "kind", "weight")
    if kind == "unit" and isinstance(granularity, Weights | NM | QueryKey):
        raise TombolaError(
            f"the score '{score.name}' ranks whole filters and neurons, not single weights; use tb.Channels()"
        )
    inner = Weights | NM | QueryKey | SeparateChannels | PartUnits | TransformerParts | ChannelsAndHeads | Filters
    if kind == "block" and isinstance(granularity, inner):
        raise TombolaError(
            f"the score '{score.name}' ranks residual blocks, and does not go with {granularity.name}s; "
            "use tb.structure.Blocks()"
        )


class Data:
    """What a score reads: batches, a loss, and a seed.

    Args:
        score: the score's name, for messages.
        batches: (inputs, targets).
        loss: None if none was given.
        view: how the score evaluates the model; its seed, 0 by default, is `seed`.
    """

    def __init__(self, score: str, batches: Iterable[Batch], loss: Loss | None, view: View) -> None:
        self.batches = batches
        self.view = view
        self.seed = view.get("seed", 0)
        self.score, self._loss = score, loss

    @property
    def loss(self) -> Loss:
        """The loss. Raises TombolaError if none was given."""
        return required_loss(self._loss, self.score)


@dataclass(frozen=True)
class MeasuredScore:
    """A score whose mathematics is `measure`, on a network that `untouched` has made."""

    name: ClassVar[str]
    needs: ClassVar[Needs] = ""
    needs_loss: ClassVar[bool] = False
    takes_complex: ClassVar[bool] = False
    cancels: ClassVar[bool] = False
    """Whether it is w · ∂L/∂w with its sign, whose sum over a unit's weights a norm behind them makes 0."""
    precision: ClassVar[torch.dtype] = torch.float32

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def needs_data(self) -> bool:
        return self.needs != ""

    @property
    def kind(self) -> Kind:
        """What the score ranks."""
        raise NotImplementedError

    @property
    def mode(self) -> Mode:
        """The mode of batch norm and dropout during scoring."""
        return "eval"

    @property
    def reads(self) -> int:
        """How many batches the score reads."""
        return getattr(self, "batches", 1)

    def data(self, batches: Batches, loss: Loss | None, view: View) -> Data:
        """The batches and the loss that the score uses. Raises TombolaError if one that it needs is missing."""
        if self.needs_loss:
            required_loss(loss, self.name)
        batches = first_batches(batches, self.reads, self.name) if self.needs_data else batches
        return Data(self.name, batches, loss, view)

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores:
        check_network(model)
        data = self.data(batches, loss, view)
        if self.needs != "data":
            return self.worths(model, data)
        data.batches = batches_of_all(model, data.batches)
        return same_on_all(model, self.worths(own_network(model), data))

    def worths(self, model: nn.Module, data: Data) -> Scores:
        """The scores of a network, on batches that all processes that train it have in common."""
        with self.evaluated(model, data.view) as network:
            if not self.takes_complex:
                check_real(network.weights, f"the score '{self.name}'")
            return self.measure(network, data)

    def evaluated(self, model: nn.Module, view: View) -> Any:
        """A context manager that gives the network at the view's mask, in the score's mode and precision."""
        settings: Any = {"mode": self.mode, "dtype": self.precision, **view}
        return untouched(model, **settings)

    def measure(self, network: Pure, data: Data) -> Scores:
        """The scores; larger = keep. The network's tensors are copies, which the score may change."""
        raise NotImplementedError


@dataclass(frozen=True)
class WeightScore(MeasuredScore):
    """A score of weights: one tensor for each prunable parameter, of its shape."""

    @property
    def kind(self) -> Kind:
        return "weight"


@dataclass(frozen=True)
class GradientScore(WeightScore):
    """A score of each weight and the gradient of the mean loss with respect to it.

    Args:
        batches: how many batches to read. Their gradients are averaged with their signs.
        batch_norm: the mode of batch norm and dropout during scoring.

    Examples:
        A new score is one method:

        >>> @dataclass(frozen=True)
        ... class Ratio(GradientScore):
        ...     name = "ratio"
        ...
        ...     def worth(self, weight, gradient):
        ...         return (gradient / (1 + weight.abs())).abs()
        >>> batch = torch.ones(2, 3), torch.zeros(2, 1)
        >>> Ratio()(nn.Linear(3, 1), [batch], nn.functional.mse_loss)["weight"].shape
        torch.Size([1, 3])
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
        return {name: self.worth(value, gradient) for (name, value), gradient in zip(values, gradients, strict=True)}

    def worth(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """The scores of weights with these gradients, element by element."""
        raise NotImplementedError


@dataclass(frozen=True)
class GatheredScore(WeightScore):
    """A score that gathers gradients step by step while a network trains. See `TrainingScore`."""

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
        """Update what was gathered for one parameter, in place, with a step's gradient at the step's weights."""
        raise NotImplementedError

    def from_gathered(self, model: nn.Module, gathered: Mapping[str, Tensor], **view: Unpack[View]) -> Scores:
        """The scores from what `note` gathered, by parameter name, over a training."""
        with self.evaluated(model, view) as network:
            return self.of_gathered(network, gathered)

    def of_gathered(self, network: Pure, gathered: Mapping[str, Tensor]) -> Scores:
        """The scores; larger = keep. `gathered` must not be changed."""
        raise NotImplementedError


@dataclass(frozen=True)
class UnitScore(MeasuredScore):
    """A score of units: a vector for each layer, by the name of its weight, with a number for each filter or neuron."""

    @property
    def kind(self) -> Kind:
        return "unit"


@dataclass(frozen=True)
class BlockScore(MeasuredScore):
    """A score of residual blocks: a tensor of one number for each block, by the block's name."""

    @property
    def kind(self) -> Kind:
        return "block"

    def worths(self, model: nn.Module, data: Data) -> Scores:
        """The scores of the network's blocks; larger = keep. The network must stay unchanged."""
        raise NotImplementedError
