"""Movement: which weights does training move away from 0?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Unpack

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores.evaluate import untouched
from tombola.scores.types import Batches, Loss, Scores, View


@dataclass(frozen=True)
class Movement:
    """−Σ w · ∂L/∂w over the steps of a training: what moves away from 0 stays (Sanh, Wolf, Rush, NeurIPS 2020)."""

    name: ClassVar[str] = "movement"
    needs_data: ClassVar[bool] = True
    needs_training: ClassVar[bool] = True

    def note(self, gathered: Tensor, gradient: Tensor, weight: Tensor) -> None:
        """Take a step's gradient of one parameter, at its weights, into what was gathered of it, in place."""
        gathered.addcmul_(weight.float(), gradient.float(), value=-1)

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores:
        raise TombolaError(
            f"the score '{self.name}' watches a network train; use it in tb.Iterative, or in tb.OneShot with after=1"
        )

    def from_gathered(self, model: nn.Module, gathered: Mapping[str, Tensor], **view: Unpack[View]) -> Scores:
        """The scores from what `note` gathered over a training."""
        with untouched(model, mode="eval", **view) as network:
            return {name: gathered[name].clone() for name in network.weights}
