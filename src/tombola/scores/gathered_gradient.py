"""Weight × gradient: what the loss's gradients, gathered over many batches, say that a weight is worth."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.scores.evaluate import UnusedWarning, needed, take, untouched
from tombola.scores.gradient import loss_of
from tombola.scores.types import Batches, Loss, Scores, View

Gather = Literal["all-steps", "last-batch", "pass", "first-batch"]


@dataclass(frozen=True)
class WeightGradient:
    """|w · G^γ| of a weight w and its gathered gradient G ≥ 0, relative to the largest (Lévai & Zombori, 2020).

    gather: what G is summed over: `all-steps` of a training, at the weights of each step; one `pass` over the batches
    given, or their `first-batch` alone, at the weights as they are; or the training's `last-batch` alone. Of each batch
    the gradient of its mean loss is taken. signed: sum the gradients as they are, and take the absolute value of the
    sum, instead of summing absolute values. exponent: γ; 0 is magnitude. weighted: False leaves w out: |G^γ|.
    """

    exponent: float = 1.0
    weighted: bool = True
    gather: Gather = "pass"
    signed: bool = False

    name: ClassVar[str] = "weight-gradient"
    needs_data: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.exponent >= 0 or not (self.exponent or self.weighted):
            raise TombolaError(
                f"the exponent is {self.exponent} with weighted={self.weighted}; give a number of at least 0, and "
                "above 0 where the gradient alone counts"
            )

    @property
    def needs_training(self) -> bool:
        return self.gather in ("all-steps", "last-batch")

    def note(self, gathered: Tensor, gradient: Tensor, weight: Tensor) -> None:
        """Add a batch's gradient of one parameter to what was gathered of it, in place, whatever the weight."""
        if self.gather == "last-batch":
            gathered.copy_(gradient)
        else:
            gathered.add_(gradient if self.signed else gradient.abs())

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores:
        if self.needs_training:
            raise TombolaError(
                f"the score '{self.name}' gathers '{self.gather}' while a network trains; use it in tb.Iterative, "
                "or in tb.OneShot with after=1, or give gather='pass'"
            )
        loss, rest = needed(loss, self.name), iter(batches)
        taken = take(rest, 1, self.name)
        with untouched(model, mode="train", **view) as network:
            gathered = {name: torch.zeros_like(weight) for name, weight in network.weights.items()}
            for batch in chain(taken, rest if self.gather == "pass" else ()):
                own = torch.autograd.grad(
                    loss_of(network, batch, loss), list(network.weights.values()), materialize_grads=True
                )
                for total, gradient, weight in zip(gathered.values(), own, network.weights.values(), strict=True):
                    self.note(total, gradient, weight)
        return self._scores(network.weights, gathered)

    def from_gathered(self, model: nn.Module, gathered: Mapping[str, Tensor], **view: Unpack[View]) -> Scores:
        """The scores from what `note` gathered over a training."""
        with untouched(model, mode="eval", **view) as network:
            return self._scores(network.weights, gathered)

    @torch.no_grad()
    def _scores(self, weights: Mapping[str, Tensor], gathered: Mapping[str, Tensor]) -> Scores:
        sizes = {name: gathered[name].abs() for name in weights}
        if self.exponent:
            _check(sizes, weights, self.name)
        largest = torch.stack([own.max() for own in sizes.values()]).max()
        worth = {name: (own / largest).pow_(self.exponent) for name, own in sizes.items()}
        return {name: worth[name] * weights[name].abs() for name in weights} if self.weighted else worth


def _check(gathered: Mapping[str, Tensor], weights: Mapping[str, Tensor], score: str) -> None:
    """TombolaError if the gradients are no numbers or all 0; an UnusedWarning that names the layers where they are 0.

    A layer of which no weight is left has none, and is no news.
    """
    if not all(own.isfinite().all() for own in gathered.values()):
        raise TombolaError(
            f"the gradients for the score '{score}' are not finite numbers: training diverged; lower the learning rate "
            "or look at the data"
        )
    idle = [name for name, own in gathered.items() if not own.any()]
    if len(idle) == len(gathered):
        raise TombolaError(f"every gradient for the score '{score}' is 0: the loss depends on no prunable weight")
    if named := ", ".join(f"'{name}'" for name in idle if weights[name].any()):
        warnings.warn(
            f"the loss does not depend on {named}: the gradient is 0 there, so all of it is worth 0 and goes first",
            UnusedWarning,
            stacklevel=4,
        )
