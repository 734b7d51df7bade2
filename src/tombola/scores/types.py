"""The types that scores take and return, and how a model is called on inputs."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol, TypedDict, TypeGuard, Unpack

from torch import Tensor, nn

from tombola.arrays import as_tensors
from tombola.errors import TombolaError
from tombola.nested import mapped
from tombola.scores.pairs import is_dataset, paired
from tombola.structure import Probe, Prunable
from tombola.tickets import Mask

Inputs = Any
"""A tensor, a tuple of arguments, or a dict of keyword arguments."""

Batch = tuple[Inputs, Any]
"""(inputs, targets)."""
Batches = Iterable[Batch]
Loss = Callable[[Any, Any], Tensor]
"""(outputs, targets) → the mean loss of a batch."""
Forward = Callable[[nn.Module, Inputs], Any]
"""(model, inputs) → outputs."""
Scores = dict[str, Tensor]
"""By name, a float tensor for each parameter, a vector for each layer's units, or one number for each block."""


def forward(model: nn.Module, inputs: Inputs) -> Any:
    """Call a model on a tensor, a tuple of arguments or a dict of keyword arguments.

    Args:
        model: the model.
        inputs: a plain tuple or list becomes positional arguments, a mapping keyword arguments, all else one
            argument, a named tuple or a packed sequence too.

    Returns:
        The model's outputs.

    Raises:
        TombolaError: if the model does not take such arguments.

    Examples:
        >>> import torch
        >>> forward(nn.Bilinear(2, 3, 4), (torch.ones(5, 2), torch.ones(5, 3))).shape
        torch.Size([5, 4])
    """
    arguments, words = _arguments(inputs)
    try:
        return model(*arguments, **words)
    except TypeError as error:
        try:
            inspect.signature(model.forward).bind(*arguments, **words)
        except TypeError as why:
            given = (
                f"a {type(inputs).__name__} of {', '.join(map(str, words))}" if words else f"{len(arguments)} inputs"
            )
            raise TombolaError(
                f"a batch gives {given}, but the network's forward does not take this ({why}); say how it is called, "
                "as SupervisedTask(forward=lambda model, inputs: model(…))"
            ) from error
        raise  # its own error


def _arguments(inputs: Inputs) -> tuple[tuple[Any, ...] | list[Any], Mapping[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), inputs
    return (inputs, {}) if type(inputs) in (tuple, list) else ((inputs,), {})


def suited(inputs: Inputs, model: nn.Module) -> Inputs:
    """Move inputs to a model's device, and floating-point inputs to its precision.

    Args:
        inputs: tensors in any nest that `nested.mapped` knows; other values pass as they are.
        model: its first parameter decides the device and the precision.

    Returns:
        Inputs of the same structure.

    Examples:
        >>> import torch
        >>> suited({"ids": torch.ones(2, dtype=torch.int64)}, nn.Linear(2, 2).double())["ids"].dtype
        torch.int64
    """
    parameter = next(model.parameters(), None)
    if parameter is None:
        return inputs
    device, dtype = parameter.device, parameter.dtype
    return mapped(inputs, lambda tensor: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype))


def checked_batch(batch: Any) -> Batch:
    """Inputs and targets of a batch, with tensors for arrays.

    Args:
        batch: as `paired` takes it.

    Raises:
        TombolaError: if it is no batch, as where one batch stands in the place of many.
    """
    inputs, targets = paired(batch)
    return as_tensors(inputs, double=True), as_tensors(targets, double=True, labels=True)


def checked_batches(batches: Any) -> Iterator[Batch]:
    """The batches as pairs. Raises TombolaError for what gives samples in the place of batches, and for no batches."""
    if is_dataset(batches) or isinstance(batches, Tensor | Mapping) or not hasattr(batches, "__iter__"):
        raise TombolaError(
            f"batches must be an iterable of (inputs, targets), as [(inputs, targets)] or a DataLoader, and not a "
            f"{type(batches).__name__}; make batches of a data set, as DataLoader(dataset, batch_size=128)"
        )
    return map(_no_sample, batches)


def _no_sample(batch: Any) -> Batch:
    inputs, targets = checked_batch(batch)
    if isinstance(targets, Tensor) and not targets.ndim:
        raise TombolaError("batches must hold several samples, and one target came; make batches, as with a DataLoader")
    return inputs, targets


def probe_of(batches: Batches, forward: Forward) -> Probe:
    """A function that calls a model on the first of some batches.

    Args:
        batches: read only when the function is called.
        forward: calls a model on inputs.

    Returns:
        The function: from a model to its outputs. It raises TombolaError if there is no batch.
    """

    def probe(model: nn.Module) -> Any:
        for inputs, _ in checked_batches(batches):
            return forward(model, suited(inputs, model))
        raise TombolaError(
            "channels, and residual blocks that do not declare themselves, are found by calling the network on a "
            "batch; give batches=[(inputs, targets)], as to rounds(model, batches=…)"
        )

    return probe


class Called(nn.Module):
    """A module that calls a model the way a task does, so that `called_with` can swap its tensors.

    Args:
        model: the model; its parameters have the prefix `model.` here.
        forward: calls the model on inputs.
    """

    def __init__(self, model: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.model = model
        self._forward = forward

    def forward(self, inputs: Inputs) -> Any:
        return self._forward(self.model, inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Called:
        # `forward` may be a method of a task, whose data must not be copied with the model.
        return Called(copy.deepcopy(self.model, memo), self._forward)


class View(TypedDict, total=False):
    """How a score evaluates the model; every field may be left out.

    Args:
        mask: evaluate the model at weights · mask; as it is if None.
        regrow: also score what the mask removes, at its value in the model. The default False scores it at 0.
        prunable: the rule that chooses the parameters to score; weights of convolutions and linear layers by default.
        forward: calls the model on inputs.
        seed: seeds everything random in the score; 0 by default.
    """

    mask: Mask | None
    regrow: bool
    prunable: Prunable
    forward: Forward
    seed: int


def check_takes(score: Any, view: View) -> None:
    """Check that a score can be called with a view.

    Args:
        score: any callable.
        view: the keyword arguments that it will get.

    Raises:
        TombolaError: it does not accept them, or not a model, batches and a loss before them.

    Examples:
        >>> check_takes(lambda model, batches, loss: {}, View(seed=0))
        Traceback (most recent call last):
        tombola.errors.TombolaError: the score '<lambda>' must accept model, batches, loss and the keyword arguments ...
    """
    try:
        inspect.signature(score).bind(None, (), None, **view)
    except ValueError:  # a callable written in C may not say what it accepts
        return
    except TypeError as error:
        name = getattr(score, "name", "") or getattr(score, "__name__", type(score).__name__)
        raise TombolaError(
            f"the score '{name}' must accept model, batches, loss and the keyword arguments that tombola.scores.View "
            f"lists ({', '.join(View.__annotations__)}); write it as {name}(model, batches=(), loss=None, **view)"
        ) from error


class Score(Protocol):
    """Any callable that says how much each weight is worth. It leaves the model and the global random state unchanged.

    Parameters, buffers, gradients and modes are as before the call. `tombola.testing.check_score` checks this.

    Args:
        model: the model.
        batches: read only if `needs_data`.
        loss: of outputs and targets, for scores that need one.
        view: the fields of a `View`.

    Returns:
        One float tensor for each prunable parameter, of its shape; larger = keep.

    Examples:
        >>> import torch
        >>> from tombola.scores import snip
        >>> batch = torch.randn(8, 4), torch.randint(3, (8,))
        >>> {name: score.shape for name, score in snip(nn.Linear(4, 3), [batch], nn.functional.cross_entropy).items()}
        {'weight': torch.Size([3, 4])}
    """

    name: ClassVar[str]

    @property
    def needs_data(self) -> bool: ...

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores: ...


class TrainingScore(Score, Protocol):
    """A score whose settings may let it gather gradients from the steps of a training instead of reading batches.

    A training calls `note(gathered, gradient, weight)` before each step for each parameter, which updates `gathered` in
    place. `gathered` has the weight's shape, and begins with zeros in float32. After the training, `from_gathered`
    returns the scores.
    """

    @property
    def needs_training(self) -> bool: ...

    def note(self, gathered: Tensor, gradient: Tensor, weight: Tensor) -> None: ...

    def from_gathered(self, model: nn.Module, gathered: Mapping[str, Tensor], **view: Unpack[View]) -> Scores: ...


def needs_training(score: Score) -> TypeGuard[TrainingScore]:
    """Whether a score gathers gradients from the steps of a training.

    Examples:
        >>> from tombola.scores import Movement, Snip
        >>> needs_training(Movement()), needs_training(Snip())
        (True, False)
    """
    return getattr(score, "needs_training", False)
