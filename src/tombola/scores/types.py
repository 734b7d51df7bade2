"""What scores take and give."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol, TypedDict, TypeGuard, Unpack

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.structure import Probe, Prunable
from tombola.tickets import Mask

Inputs = Any
"""A tensor, a tuple of arguments, or a dict of keyword arguments."""

Batch = tuple[Inputs, Any]
Batches = Iterable[Batch]
Loss = Callable[[Any, Any], Tensor]
Forward = Callable[[nn.Module, Inputs], Any]
Scores = dict[str, Tensor]


def forward(model: nn.Module, inputs: Inputs) -> Any:
    """Call a model on a tensor, a tuple of arguments or a dict of keyword arguments."""
    if isinstance(inputs, dict):
        return model(**inputs)
    if isinstance(inputs, tuple | list):
        return model(*inputs)
    return model(inputs)


def suited(inputs: Inputs, model: nn.Module) -> Inputs:
    """Inputs where a model's parameters are; numbers with a fraction in their precision."""
    like = next(model.parameters(), None)
    if like is None:
        return inputs
    if isinstance(inputs, dict):
        return {key: suited(own, model) for key, own in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(suited(own, model) for own in inputs)
    if isinstance(inputs, Tensor):
        return inputs.to(like.device, like.dtype if inputs.is_floating_point() else inputs.dtype)
    return inputs


def probe_of(batches: Batches, forward: Forward) -> Probe:
    """Calls a model on the first of some batches; TombolaError, when it is called, if there is none."""

    def probe(model: nn.Module) -> Any:
        for inputs, _ in batches:
            return forward(model, suited(inputs, model))
        raise TombolaError(
            "channels, and residual blocks that do not say what they add, are found by calling the network on a batch; "
            "give batches=…"
        )

    return probe


class Called(nn.Module):
    """A model called the way the task calls it, so that `torch.func.functional_call` can swap its tensors."""

    def __init__(self, model: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.model = model
        self._forward = forward

    def forward(self, inputs: Inputs) -> Any:
        return self._forward(self.model, inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Called:
        return Called(copy.deepcopy(self.model, memo), self._forward)


class View(TypedDict, total=False):
    """How a score looks at the model; every field may be left out.

    mask: at weights · mask; regrow: there, what the mask removes is scored too, as if it came back with its own value;
    prunable: the rule for which parameters are scored; forward: how the model is called on inputs; seed: all that is
    random in the score comes from it.
    """

    mask: Mask | None
    regrow: bool
    prunable: Prunable
    forward: Forward
    seed: int


class Score(Protocol):
    """How much is each weight worth? A pure function of the model, and of batches and loss where it needs them.

    Returns one float tensor a prunable parameter, of its shape; larger = keep. Parameters, buffers, gradients,
    modes and the global random state are as before the call. needs_data: whether it reads batches.
    """

    name: ClassVar[str]

    @property
    def needs_data(self) -> bool: ...

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores: ...


class TrainingScore(Score, Protocol):
    """A score that may, as it is set, gather gradients from the steps of a training instead of reading batches.

    note: takes a step's gradient of one parameter, at the weight that it has, into what was gathered of that, in place;
    it begins with zeros, in float32. from_gathered: the scores once the training has ended.
    """

    @property
    def needs_training(self) -> bool: ...

    def note(self, gathered: Tensor, gradient: Tensor, weight: Tensor) -> None: ...

    def from_gathered(self, model: nn.Module, gathered: Mapping[str, Tensor], **view: Unpack[View]) -> Scores: ...


def needs_training(score: Score) -> TypeGuard[TrainingScore]:
    """Whether a score gathers gradients from the steps of a training."""
    return getattr(score, "needs_training", False)
