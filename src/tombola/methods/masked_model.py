"""A network whose weights follow from trainable scores, evaluated without touching its classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores import Called, check_real
from tombola.structure import Prunable
from tombola.tickets import Mask, as_density, called_with, kth_largest, paths_of, quotas
from tombola.training import Recipe, Task, TaskWrapper

SEARCH = "a search by trained scores"

Weigh = Callable[[list[Tensor], list[Tensor]], list[Tensor]]
"""From the scores and the weights of all layers to the weights that the network is evaluated at."""


class MaskedModel(nn.Module):
    """A model with one score for each prunable weight, which computes with `weigh(scores, weights)` in place of
    them.

    The model's own parameters are frozen; the scores are parameters of this module.

    Args:
        task: says how the model is called on inputs.
        model: the network; its parameters no longer require gradients.
        prunable: which parameters get scores.
        start: makes the first scores from a weight.
        weigh: makes the weights that the network computes with, from the scores and the weights of all layers.
    """

    def __init__(
        self, task: Task, model: nn.Module, prunable: Prunable, start: Callable[[Tensor], Tensor], weigh: Weigh
    ) -> None:
        super().__init__()
        self.called = Called(model.requires_grad_(requires_grad=False), task.forward)
        paths, searched = paths_of(model), prunable(model)
        check_real(searched, SEARCH)
        self.names = tuple(searched)
        self._paths = [f"model.{paths[name]}" for name in self.names]
        self.scores = nn.ParameterList([nn.Parameter(start(weight).to(weight)) for weight in self.weights])
        self._weigh = weigh

    @property
    def weights(self) -> list[Tensor]:
        """The model's own prunable weights, in the order of the scores."""
        return [self.called.get_parameter(path) for path in self._paths]

    @property
    def named_scores(self) -> dict[str, Tensor]:
        """The scores by the names of the parameters that they belong to."""
        return {name: score.detach() for name, score in zip(self.names, self.scores, strict=True)}

    def forward(self, inputs: Any) -> Any:
        masked_weights = self._weigh(list(self.scores), self.weights)
        # The module stays as it is: it is called as if these were its parameters, so gradients reach the scores.
        return called_with(self.called, dict(zip(self._paths, masked_weights, strict=True)), inputs)

    def check_density(self, density: float, floor: int = 0) -> None:
        """Raise TombolaError unless the density keeps at least one weight, and `floor` in every layer."""
        size = sum(weight.numel() for weight in self.weights)
        density = as_density(density, "weights")
        if round(density * size) < 1:
            raise TombolaError(f"density {density} keeps not one of {size:,} weights; give at least {1 / size:.2g}")
        least = sum(min(floor, weight.numel()) for weight in self.weights)
        if least > round(density * size):
            raise TombolaError(
                f"density {density} keeps {round(density * size)} of {size:,} weights, fewer than a floor of {floor} "
                f"in each of {len(self.weights)} layers; lower the floor or raise the density"
            )

    def highest(self, layer: str, within: Mask, count: int) -> Tensor:
        """Which `count` weights of a layer have the highest scores, among those that a mask keeps."""
        score, within_layer = self.named_scores[layer], within[layer]
        ranked = torch.where(within_layer.to(score.device), score.float(), -torch.inf).flatten()
        best_indices = ranked.topk(min(count, int(within_layer.sum()))).indices
        chosen = torch.zeros(score.numel(), dtype=torch.bool, device=score.device)
        return chosen.index_fill_(0, best_indices, value=True).view(score.shape)

    @torch.no_grad()
    def remove(self, dead: Mapping[str, Tensor]) -> None:
        """Set weights to zero for good, so that their scores have no effect and no gradient any more."""
        for name, weight in zip(self.names, self.weights, strict=True):
            weight.masked_fill_(dead[name].to(weight.device), 0.0)

    @torch.no_grad()
    def settle(self, mask: Mask) -> None:
        """Make the network the one that the mask keeps, from now on."""
        for name, score in self.named_scores.items():
            score.copy_(mask[name])
        self._weigh = rounded


@dataclass(frozen=True)
class MaskedTask(TaskWrapper):
    """The task of a search: the user's own, but with the searched network called in place of the model.

    An optimizer and a scheduler of the task's own are for weights: scores train by the recipe.
    """

    optimizer: ClassVar[None] = None
    scheduler: ClassVar[None] = None

    def forward(self, model: nn.Module, inputs: Any, /) -> Any:
        return model(inputs)


class Rounded(torch.autograd.Function):
    """weight · [score > ½] for scores in [0, 1]; the gradient goes straight through the rounding to the score."""

    @staticmethod
    def forward(ctx: Any, score: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return score.round().mul_(weight)  # round() made a new tensor, so the product may be in place.

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradients[0] * weight, None


class Topmost(torch.autograd.Function):
    """weight · [|score| ≥ threshold]; the gradient goes straight through the choice to |score|."""

    @staticmethod
    def forward(ctx: Any, score: Tensor, weight: Tensor, threshold: float | Tensor) -> Tensor:
        ctx.save_for_backward(score, weight)
        return torch.ge(score.abs(), threshold, out=torch.empty_like(score)).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        score, weight = ctx.saved_tensors
        return gradients[0] * weight * score.sign(), None, None


def check_length(length: float) -> None:
    """Raise TombolaError unless a search can last this many times the recipe's epochs."""
    if not (math.isfinite(length) and length > 0):
        raise TombolaError(f"the length is {length}; give the search's epochs as a multiple of the recipe's")


def score_recipe(recipe: Recipe, length: float, optimizer: Literal["sgd", "adam"], lr: float) -> Recipe:
    """How scores are trained: with the recipe's data and precision, at a cosine learning rate.

    Weight decay, clipping, averaging, HAM and the optimizer's options are for weights.

    Args:
        recipe: the task's.
        length: the epochs of the search, as a multiple of the recipe's; at least one epoch is trained.
        optimizer: of the scores, `sgd` (with momentum 0.9) or `adam`.
        lr: its first learning rate.
    """
    return replace(
        recipe,
        epochs=max(1, round(length * recipe.epochs)),
        optimizer=optimizer,
        lr=lr,
        momentum=0.9,
        nesterov=False,
        weight_decay=0.0,
        schedule="cosine",
        warmup=0.0,
        start="0it",
        options=(),
        clip=0.0,
        clip_value=0.0,
        ema=0.0,
        ham_alpha=0.0,
        ham_beta=0.0,
    )


def positive(scores: Mapping[str, Tensor]) -> Mask:
    """The mask of the weights whose scores are above 0."""
    return Mask.of({name: score > 0 for name, score in scores.items()})


def rounded(scores: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    """The weights whose scores in [0, 1] are above ½."""
    return [Rounded.apply(score, weight) for score, weight in zip(scores, weights, strict=True)]


class TopShare:
    """Keeps the weights with the highest |score|: a share of all or of each layer, at least `floor` of each layer.

    `thresholds` are found when they are empty, so clear them after the scores or the share have changed.
    """

    def __init__(self, share: float, scope: Literal["global", "layerwise"], floor: int) -> None:
        self.share = share
        self.thresholds: list[float | Tensor] = []
        self._scope = scope
        self._floor = floor

    def __call__(self, scores: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
        if not self.thresholds:
            self.thresholds = self._find_thresholds([score.detach().abs() for score in scores])
        triples = zip(scores, weights, self.thresholds, strict=True)
        return [Topmost.apply(score, weight, threshold) for score, weight, threshold in triples]

    def mask(self, scores: Mapping[str, Tensor]) -> Mask:
        """What is kept at these scores."""
        values = [score.abs() for score in scores.values()]
        triples = zip(scores, values, self._find_thresholds(values), strict=True)
        return Mask.of({name: value >= threshold for name, value, threshold in triples})

    def _find_thresholds(self, values: list[Tensor]) -> list[float | Tensor]:
        if values[0].is_meta:  # FLOPs are counted on the meta device, where there are no values to rank.
            return [0.0] * len(values)
        sizes = tuple(value.numel() for value in values)
        floors = tuple(min(self._floor, size) for size in sizes)
        # Counts are those of `tombola.select`, which makes the ticket.
        budget = max(1, sum(floors), round(self.share * sum(sizes)))
        if self._scope == "layerwise":
            counts = layer_counts(sizes, budget, floors)
            return [kth_or_none([value], count) for value, count in zip(values, counts, strict=True)]
        if not any(floors):
            return [kth_largest(values, budget)] * len(values)
        of_layers = [kth_largest([value], floor) for value, floor in zip(values, floors, strict=True)]
        # Each layer's floor first, then the best of all that remains.
        rest = [value.masked_fill(value >= own, -1.0) for value, own in zip(values, of_layers, strict=True)]
        shared_threshold = kth_or_none(rest, budget - sum(floors))
        lower: Any = torch.minimum if isinstance(shared_threshold, Tensor) else min
        return [lower(shared_threshold, threshold) for threshold in of_layers]


def kth_or_none(values: list[Tensor], count: int) -> float | Tensor:
    """The threshold above which `count` values lie: infinite if none shall."""
    return kth_largest(values, count) if count else math.inf


@cache
def layer_counts(sizes: tuple[int, ...], budget: int, floors: tuple[int, ...]) -> list[int]:
    """How many weights each layer keeps at one density for all, as `tombola.select` has it.

    Examples:
        >>> layer_counts((10, 10, 10), 5, (0, 0, 0))
        [2, 2, 1]
    """
    shapes = {str(layer): (size,) for layer, size in enumerate(sizes)}
    return quotas(shapes, budget, "layerwise", np.array(sizes), np.array(floors)).tolist()


def uniform(weight: Tensor, generator: torch.Generator) -> Tensor:
    """First scores drawn from U[0, 1]."""
    return torch.rand(weight.shape, generator=generator)


def kaiming_uniform(weight: Tensor, generator: torch.Generator) -> Tensor:
    """First scores from a uniform distribution around 0 of variance 1 / (3 · fan-in), as linear layers start."""
    return nn.init.kaiming_uniform_(torch.empty(weight.shape), a=math.sqrt(5), generator=generator)
