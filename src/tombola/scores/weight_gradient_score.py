"""Weight × gradient: what the loss's gradients, gathered over many batches, say that a weight is worth."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.scores.evaluation import Pure, UnusedWarning, loss_of, needed, take
from tombola.scores.kinds import Data, GatheredScore, Needs
from tombola.scores.types import Batches, Loss, Scores, View
from tombola.structure import Mode

Gather = Literal["all-steps", "last-batch", "pass", "first-batch"]


@dataclass(frozen=True)
class WeightGradient(GatheredScore):
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
    needs: ClassVar[Needs] = "data"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.exponent >= 0 or not (self.exponent or self.weighted):
            raise TombolaError(
                f"the exponent is {self.exponent} with weighted={self.weighted}; give a number of at least 0, and "
                "above 0 where the gradient alone counts"
            )

    @property
    def needs_training(self) -> bool:
        return self.gather in ("all-steps", "last-batch")

    @property
    def mode(self) -> Mode:
        return "train"

    def note(self, gathered: Tensor, gradient: Tensor, weight: Tensor) -> None:
        if self.gather == "last-batch":
            gathered.copy_(gradient)
        else:
            gathered.add_(gradient if self.signed else gradient.abs())

    def data(self, batches: Batches, loss: Loss | None, view: View) -> Data:
        needed(loss, self.name)
        rest = iter(batches)
        taken = take(rest, 1, self.name)
        return Data(self.name, chain(taken, rest if self.gather == "pass" else ()), loss, view)

    def measure(self, network: Pure, data: Data) -> Scores:
        gathered = {name: torch.zeros_like(weight) for name, weight in network.weights.items()}
        for batch in data.batches:
            own = torch.autograd.grad(
                loss_of(network, batch, data.loss), list(network.weights.values()), materialize_grads=True
            )
            for total, gradient, weight in zip(gathered.values(), own, network.weights.values(), strict=True):
                self.note(total, gradient, weight)
        return self._scores(network.weights, gathered)

    def of_gathered(self, network: Pure, gathered: Mapping[str, Tensor]) -> Scores:
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
