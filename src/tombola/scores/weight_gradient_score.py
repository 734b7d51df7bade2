"""Weight × gradient, where the gradient is gathered over many batches."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.scores.evaluation import Pure, UnusedWarning, first_batches, loss_of, required_loss
from tombola.scores.kinds import Data, GatheredScore, Needs
from tombola.scores.types import Batches, Loss, Scores, View, checked_batches
from tombola.structure import Mode

Gather = Literal["all-steps", "last-batch", "pass", "first-batch"]


@dataclass(frozen=True)
class WeightGradient(GatheredScore):
    """|w · G^γ| of a weight w and its gathered gradient G ≥ 0, relative to the largest (Lévai & Zombori, 2020).

    G sums the gradients of each batch's mean loss.

    Args:
        exponent: γ; 0 is magnitude.
        weighted: False leaves w out: |G^γ|.
        gather: which batches G sums. `pass` reads all batches and `first-batch` only the first, at the present weights.
            `all-steps` takes every step of a training at that step's weights, `last-batch` only the last step.
        signed: sum the gradients with their signs and take the absolute value of the sum. The default False sums
            absolute values.

    Examples:
        >>> layer, batch = torch.nn.Linear(4, 3), (torch.randn(8, 4), torch.randint(3, (8,)))
        >>> WeightGradient()(layer, [batch, batch], torch.nn.functional.cross_entropy)["weight"].shape
        torch.Size([3, 4])
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
                "above 0 if weighted is False"
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
        required_loss(loss, self.name)
        rest = checked_batches(batches)
        # Reads one batch ahead, to refuse an empty pass here; the others are read one by one, and never all held.
        first = first_batches(rest, 1, self.name)
        return Data(self.name, chain(first, rest if self.gather == "pass" else ()), loss, view)

    def measure(self, network: Pure, data: Data) -> Scores:
        gathered = {name: torch.zeros_like(weight) for name, weight in network.weights.items()}
        for batch in data.batches:
            gradients = torch.autograd.grad(
                loss_of(network, batch, data.loss), list(network.weights.values()), materialize_grads=True
            )
            for total, gradient, weight in zip(gathered.values(), gradients, network.weights.values(), strict=True):
                self.note(total, gradient, weight)
        return self._scores(network.weights, gathered)

    def of_gathered(self, network: Pure, gathered: Mapping[str, Tensor]) -> Scores:
        return self._scores(network.weights, gathered)

    @torch.no_grad()
    def _scores(self, weights: Mapping[str, Tensor], gathered: Mapping[str, Tensor]) -> Scores:
        sizes = {name: gathered[name].abs() for name in weights}
        if self.exponent:
            _check_gradients(sizes, weights, self.name)
        # Relative to the largest, so that the power neither overflows nor vanishes.
        largest = torch.stack([size.max() for size in sizes.values()]).max()
        powers = {name: (size / largest).pow_(self.exponent) for name, size in sizes.items()}
        return {name: powers[name] * weights[name].abs() for name in weights} if self.weighted else powers


def _check_gradients(gathered: Mapping[str, Tensor], weights: Mapping[str, Tensor], score: str) -> None:
    """Raise TombolaError if gradients are not finite or all 0; warn of the layers where they are 0.

    A layer without any weight left has no gradient either, and needs no warning.
    """
    if not all(gradient.isfinite().all() for gradient in gathered.values()):
        raise TombolaError(
            f"the gradients for the score '{score}' are not finite numbers: training diverged; lower the learning rate "
            "or look at the data"
        )
    idle = [name for name, gradient in gathered.items() if not gradient.any()]
    if len(idle) == len(gathered):
        raise TombolaError(f"every gradient for the score '{score}' is 0: the loss depends on no prunable weight")
    if named := ", ".join(f"'{name}'" for name in idle if weights[name].any()):
        warnings.warn(
            f"the loss does not depend on {named}: the gradient is 0 there, so these weights score 0 and go first",
            UnusedWarning,
            stacklevel=4,
        )
