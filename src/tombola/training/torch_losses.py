"""Torch's own losses, seen while a user's loss or metric calls them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tombola.errors import TombolaError
from tombola.training.expectations import EXPECTATIONS, IGNORED, check_fits

ELEMENTWISE: tuple[Callable[..., Any], ...] = (
    F.mse_loss,
    F.l1_loss,
    F.smooth_l1_loss,
    F.huber_loss,
    F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits,
)
"""Torch's losses of outputs and targets of one shape. Some broadcast others, and some fail."""
SHARES: tuple[Callable[..., Any], ...] = (F.binary_cross_entropy, F.binary_cross_entropy_with_logits)
"""Those of them whose targets are shares."""
STRICT = (F.huber_loss, *SHARES)
"""Those of them that take targets of the outputs' type alone."""
PAIRED = ("add", "sub", "rsub", "mul", "div", "true_divide", "eq", "ne", "pow", "__eq__", "__ne__")
"""Operations of two tensors that fit one another, by name."""


class Watched(TorchFunctionMode):
    """Inside, a loss or metric is refused where it gives one of torch's losses what that would not take, or broadcast.

    Args:
        slot: "loss" or "metric".
        outputs: the network's, which the loss or metric is given.
        targets: the batch's.
        place: whose targets these are, for errors.

    Attributes:
        classes: the outputs that a cross-entropy of these very targets was given, and the target that it leaves out;
            None if there was no such call.
    """

    def __init__(self, slot: str, outputs: Any, targets: Any, place: str = "the training targets") -> None:
        super().__init__()
        self._slot, self._outputs, self._targets, self._place = slot, outputs, targets, place
        self.classes: tuple[Tensor, int] | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        function, kwargs = func, kwargs or {}
        if function in (F.cross_entropy, F.nll_loss):
            self._see_classes(function, inspect.signature(function).bind(*args, **kwargs).arguments)
        elif function in ELEMENTWISE:
            bound = inspect.signature(function).bind(*args, **kwargs).arguments
            self._see_numbers(function, bound["input"], bound["target"])
        result = function(*args, **kwargs)
        if getattr(function, "__name__", "") in PAIRED:
            self._see_pair(args, result)
        return result

    def _see_classes(self, function: Any, given: Mapping[str, Any]) -> None:
        outputs, targets = given["input"], given["target"]
        expected = EXPECTATIONS["positions" if getattr(outputs, "ndim", 0) > 2 else "classes"]
        if function is F.cross_entropy and _are_probabilities(outputs, targets):
            return
        ignored = given.get("ignore_index", IGNORED)
        check_fits(self._slot, function.__name__, expected, outputs, targets)
        if targets.dtype not in (torch.int64, torch.uint8):
            raise TombolaError(
                f"the {self._slot} '{function.__name__}' expects class numbers of type int64, but the targets are "
                f"{_type_of(targets)}; give targets.long()"
            )
        weight = given.get("weight")
        if weight is not None and weight.numel() != outputs.shape[1]:
            raise TombolaError(
                f"the {self._slot} '{function.__name__}' has weights for {weight.numel()} classes, but the network has "
                f"{outputs.shape[1]} outputs; give one weight a class"
            )
        expected.check_values(outputs, targets, ignored, self._place)
        own = self._targets
        if isinstance(own, Tensor) and own.shape == targets.shape and bool((own == targets).all()):
            self.classes = outputs, ignored

    def _see_numbers(self, function: Any, outputs: Tensor, targets: Tensor) -> None:
        name = function.__name__
        if getattr(outputs, "shape", None) != getattr(targets, "shape", ...):
            check_fits(self._slot, name, EXPECTATIONS["numbers"], outputs, targets)
        if function in STRICT and outputs.dtype != targets.dtype and not torch.is_autocast_enabled(outputs.device.type):
            raise TombolaError(
                f"the {self._slot} '{name}' expects targets of the outputs' type {_type_of(outputs)}, but they are "
                f"{_type_of(targets)}; give targets.to(outputs.dtype)"
            )
        if function in SHARES:
            self._check_shares(name, "targets", targets, "targets of 0 and 1")
        if function is F.binary_cross_entropy:
            self._check_shares(name, "outputs", outputs, "binary_cross_entropy_with_logits, which takes any outputs")

    def _check_shares(self, name: str, what: str, values: Tensor, fix: str) -> None:
        low, high = (float(value) for value in values.detach().aminmax())
        if low < 0 or high > 1:
            raise TombolaError(
                f"the {self._slot} '{name}' expects {what} from 0 to 1, but they are from {low:g} to {high:g}; "
                f"give {fix}"
            )

    def _see_pair(self, args: tuple[Any, ...], result: Any) -> None:
        """Refuse to broadcast outputs and targets against one another so that each is repeated."""
        pair = [value for value in args[:2] if isinstance(value, Tensor)]
        if len(pair) < 2 or not isinstance(result, Tensor) or not any(self._is_given(value) for value in pair):
            return
        one, other = (tuple(value.shape) for value in pair)
        if tuple(result.shape) not in (one, other):
            raise TombolaError(
                f"the {self._slot} brings together tensors of shapes {one} and {other}, which gives every pair of "
                f"them, {tuple(result.shape)}; give targets of the outputs' shape, as targets.unsqueeze(-1), or "
                f"{self._slot}= a function that says which it means"
            )

    def _is_given(self, value: Tensor) -> bool:
        return value is self._outputs or value is self._targets


def told(loss: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """The same loss, which says what is wrong where a target is no class of the network's.

    Args:
        loss: of outputs and targets. Data that come in batches are not looked through before they are used.
    """

    def saying(outputs: Any, targets: Any) -> Tensor:
        try:
            return loss(outputs, targets)
        except IndexError:
            with Watched("loss", outputs, targets, "the targets of a batch"):
                loss(outputs, targets)
            raise

    return saying


def _are_probabilities(outputs: Any, targets: Any) -> bool:
    both = isinstance(outputs, Tensor) and isinstance(targets, Tensor)
    return both and targets.is_floating_point() and targets.shape == outputs.shape


def _type_of(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
