"""Iterative magnitude pruning of a pretrained network, rewound to what it was before it was fine-tuned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.methods.density_schedule import Schedule, densities
from tombola.methods.iterative import Iterative
from tombola.structure import Prunable, UnitMap, head_parameters, kept_share
from tombola.tickets import parameters_of, put_values
from tombola.training import Observer, Recipe, Until


@dataclass(frozen=True)
class PretrainedIterative(Iterative):
    """Fine-tune, remove a tenth of the original weights, rewind to the pretrained ones, and again.

    Chen et al., The Lottery Ticket Hypothesis for Pre-trained BERT Networks (NeurIPS 2020). All weights of the body
    compete, the pooler's too; embeddings, biases, norms and the head stay. The settings of `Iterative` hold, but for
    `share` without `count`.

    Args:
        share: the share of the original weights that each round removes, about; all rounds remove as many, so that the
            last one meets the density. With another schedule than `linear`, the number of rounds is the same.
        head: whether the head is `rewound` with the body, as in the paper's algorithm, or `carried` from round to
            round, as in its code. The ticket begins with a new head in both.
        decay: whether the learning rate falls to its end in each `round`, or over `all` rounds, of which each trains
            the beginning, as in the code; its learning rate then hardly falls.

    Raises:
        TombolaError: if a setting is out of range, or does not go with the others.

    Examples:
        >>> PretrainedIterative(density=0.3).density_kind
        'exact'
    """

    density: float = 0.3
    share: float = 0.1
    schedule: Schedule = "linear"
    prunable: Prunable = Prunable(head=False)
    head: Literal["rewound", "carried"] = "rewound"
    decay: Literal["round", "all"] = "round"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise TombolaError(f"the share removed in a round is {self.share}; give a number between 0 and 1, as 0.1")
        if self.rewind != "init" and (self.head, self.decay) != ("rewound", "round"):
            raise TombolaError(
                f"head='{self.head}' and decay='{self.decay}' are ways to rewind to the first values, and "
                f"rewind='{self.rewind}'; leave them out, or give rewind='init'"
            )

    def levels(self, units: UnitMap) -> list[float]:
        if self.count is not None:
            return super().levels(units)
        final = kept_share(units, self.density)
        return densities(final, max(1, math.ceil((1 - final) / self.share - 0.05)), self.schedule)

    def training_of_round(self, recipe: Recipe, rounds: int) -> tuple[Recipe, Observer | None]:
        if self.decay == "round":
            return recipe, None
        return replace(recipe, epochs=recipe.epochs * rounds), Until(recipe.epochs)

    def put_back(self, model: nn.Module, values: Mapping[str, Tensor]) -> None:
        carried = head_parameters(model) if self.head == "carried" else ()
        own = parameters_of(model)
        now = {name: own[name].detach().clone() for name in carried}
        put_values(model, {**values, **now})

    def check_own_loop(self) -> None:
        super().check_own_loop()
        if (self.head, self.decay) != ("rewound", "round"):
            raise TombolaError(
                f"head='{self.head}' and decay='{self.decay}' need to know the training; leave them out in your loop"
            )
