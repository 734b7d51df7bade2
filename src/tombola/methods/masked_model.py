"""A network whose weights follow from trainable scores, evaluated without touching its classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tombola.errors import TombolaError
from tombola.scores import Called
from tombola.structure import Prunable
from tombola.tickets import Mask, as_density, kth_largest, paths_of
from tombola.training import Recipe, Task, TaskWrapper

Weigh = Callable[[list[Tensor], list[Tensor]], list[Tensor]]
"""From the scores and the weights of all layers to the weights that the network is evaluated at."""


class MaskedModel(nn.Module):
    """A model with one score a prunable weight, called at `weigh(scores, weights)` in place of those weights.

    The model's own parameters are frozen; the scores, made by `start` from a weight, are this module's.
    """

    def __init__(
        self, task: Task, model: nn.Module, prunable: Prunable, start: Callable[[Tensor], Tensor], weigh: Weigh
    ) -> None:
        super().__init__()
        self.called = Called(model.requires_grad_(requires_grad=False), task.forward)
        paths = paths_of(model)
        self.names = tuple(prunable(model))
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
        weighed = self._weigh(list(self.scores), self.weights)
        return functional_call(self.called, dict(zip(self._paths, weighed, strict=True)), (inputs,))

    def check_density(self, density: float, floor: int = 0) -> None:
        """TombolaError unless it is a share that keeps at least one weight, and `floor` in every layer."""
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
        """Which `count` of a layer's weights within a mask have the highest scores."""
        score, inside = self.named_scores[layer], within[layer]
        ranked = torch.where(inside.to(score.device), score.float(), -torch.inf).flatten()
        best = ranked.topk(min(count, int(inside.sum()))).indices
        chosen = torch.zeros(score.numel(), dtype=torch.bool, device=score.device)
        return chosen.index_fill_(0, best, value=True).view(score.shape)

    @torch.no_grad()
    def remove(self, dead: Mapping[str, Tensor]) -> None:
        """Set weights to zero for good: their scores have no effect and no gradient any more."""
        for name, weight in zip(self.names, self.weights, strict=True):
            weight.masked_fill_(dead[name].to(weight.device), 0.0)

    @torch.no_grad()
    def settle(self, mask: Mask) -> None:
        """From now on the network is the one that the mask keeps."""
        for name, score in self.named_scores.items():
            score.copy_(mask[name])
        self._weigh = rounded


@dataclass(frozen=True)
class MaskedTask(TaskWrapper):
    """The task of a search: the user's own, with the searched network called in place of the model."""

    def forward(self, model: nn.Module, inputs: Any, /) -> Any:
        return model(inputs)


class Rounded(torch.autograd.Function):
    """weight · [score > ½] of scores in [0, 1]; the gradient goes straight through the rounding to the score."""

    @staticmethod
    def forward(ctx: Any, score: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return score.round().mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradients[0] * weight, None


class Topmost(torch.autograd.Function):
    """weight · [|score| ≥ threshold]; the gradient goes straight through the choice to |score|."""

    @staticmethod
    def forward(ctx: Any, score: Tensor, weight: Tensor, threshold: float) -> Tensor:
        ctx.save_for_backward(score, weight)
        return torch.ge(score.abs(), threshold, out=torch.empty_like(score)).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        score, weight = ctx.saved_tensors
        return gradients[0] * weight * score.sign(), None, None


def check_length(length: float) -> None:
    """TombolaError unless a search of so many times the recipe's epochs can be run."""
    if not (math.isfinite(length) and length > 0):
        raise TombolaError(f"the length is {length}; give the search's epochs as a multiple of the recipe's")


def score_recipe(recipe: Recipe, length: float, optimizer: Literal["sgd", "adam"], lr: float) -> Recipe:
    """How scores are trained: the recipe's data and precision, a cosine over `length` times its epochs, no decay."""
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
    )


def positive(scores: Mapping[str, Tensor]) -> Mask:
    """The mask of the weights whose scores are above 0."""
    return Mask.of({name: score > 0 for name, score in scores.items()})


def rounded(scores: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    """The weights whose scores in [0, 1] are above ½."""
    return [Rounded.apply(score, weight) for score, weight in zip(scores, weights, strict=True)]


class TopShare:
    """The weights with the highest |score|: a share of all, or of each layer, and at least `floor` of each layer.

    Whoever changes scores or share empties `thresholds`, which are then found anew.
    """

    def __init__(self, share: float, scope: Literal["global", "layerwise"], floor: int) -> None:
        self.share = share
        self.thresholds: list[float] = []
        self._scope = scope
        self._floor = floor

    def __call__(self, scores: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
        if not self.thresholds:
            self.thresholds = self._found([score.detach().abs() for score in scores])
        triples = zip(scores, weights, self.thresholds, strict=True)
        return [Topmost.apply(score, weight, threshold) for score, weight, threshold in triples]

    def mask(self, scores: Mapping[str, Tensor]) -> Mask:
        """What is kept at these scores."""
        values = [score.abs() for score in scores.values()]
        return Mask.of(
            {name: own >= least for name, own, least in zip(scores, values, self._found(values), strict=True)}
        )

    def _found(self, values: list[Tensor]) -> list[float]:
        if values[0].is_meta:
            return [0.0] * len(values)
        if self._scope == "layerwise":
            counts = [max(1, min(self._floor, own.numel()), round(self.share * own.numel())) for own in values]
            return [kth_largest([own], count) for own, count in zip(values, counts, strict=True)]
        common = kth_largest(values, max(1, round(self.share * sum(own.numel() for own in values))))
        if self._floor:
            return [min(common, kth_largest([own], min(self._floor, own.numel()))) for own in values]
        return [common] * len(values)


def uniform(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Scores from U[0, 1]."""
    return torch.rand(weight.shape, generator=generator)


def kaiming_uniform(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Scores from a uniform distribution around 0 of variance 1 / (3 · fan-in), as linear layers start from."""
    return nn.init.kaiming_uniform_(torch.empty(weight.shape), a=math.sqrt(5), generator=generator)
