"""Movement: which weights does training move away from 0?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tombola.scores.evaluation import Pure
from tombola.scores.kinds import GatheredScore
from tombola.scores.types import Scores


@dataclass(frozen=True)
class Movement(GatheredScore):
    """−Σ w · ∂L/∂w over the steps of a training (Sanh, Wolf, Rush, NeurIPS 2020): weights that move away from 0 stay.

    Examples:
        >>> import torch
        >>> gathered = torch.zeros(2)
        >>> Movement().note(gathered, gradient=torch.tensor([-1.0, 1.0]), weight=torch.tensor([0.5, 0.5]))
        >>> gathered
        tensor([ 0.5000, -0.5000])
    """

    name: ClassVar[str] = "movement"
    cancels: ClassVar[bool] = True

    def note(self, gathered: Tensor, gradient: Tensor, weight: Tensor) -> None:
        # `gathered` is float32, whatever the weights are: bfloat16 would lose small steps in a large sum.
        gathered.addcmul_(weight.float(), gradient.float(), value=-1)

    def of_gathered(self, network: Pure, gathered: Mapping[str, Tensor]) -> Scores:
        return {name: gathered[name].clone() for name in network.weights}
