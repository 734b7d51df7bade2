"""Wanda: magnitude times the norm of what a weight multiplies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores.evaluation import Pure
from tombola.scores.kinds import Data, Needs, WeightScore
from tombola.scores.types import Batch, Scores
from tombola.structure import TRANSPOSED, is_producer


@dataclass(frozen=True)
class Wanda(WeightScore):
    """|w| · ‖x‖₂, x all that the weight multiplies, ranked among the weights of its output (Sun et al., ICLR 2024).

    Scores are ranks from 0 to 1, so that at every scope each output keeps the same share of its weights, to one. In
    evaluation mode. TombolaError where a prunable weight is not that of a linear or convolution layer which is called.
    """

    batches: int = 1

    name: ClassVar[str] = "wanda"
    needs: ClassVar[Needs] = "data"

    def measure(self, network: Pure, data: Data) -> Scores:
        layers, squares = _multiplied(network, data.batches)
        lost = next((name for name in network.weights if name not in squares), None)
        if lost is not None:
            raise TombolaError(
                f"the score '{self.name}' reads what linear and convolution layers are called with, and '{lost}' is "
                f"not the weight of one; leave it out: Prunable(exclude=('{lost}',))"
            )
        return {n: _within_outputs(v.abs_() * squares[n].sqrt(), layers[n]) for n, v in network.values.items()}


def _multiplied(network: Pure, batches: Iterable[Batch]) -> tuple[dict[str, nn.Module], dict[str, Tensor]]:
    """The layer of each weight, and the sum of squares of all that the weight multiplies in it.

    That sum is the gradient, with respect to the weight, of the sum of what the layer gives for its inputs' squares.
    """
    names = {id(weight): name for name, weight in network.weights.items()}
    layers: dict[str, nn.Module] = {}
    squares: dict[str, Tensor] = {}

    def note(layer: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        weight = layer._parameters.get("weight")
        if weight is not None and id(weight) in names:
            name = names[id(weight)]
            with torch.enable_grad():
                given = layer.forward(*map(_squared, args), **{key: _squared(own) for key, own in named.items()})
                (own,) = torch.autograd.grad(given.sum(), weight)
            layers[name], squares[name] = layer, own + squares.get(name, 0)

    with torch.no_grad(), ExitStack() as hooks:
        for layer in filter(is_producer, network.model.modules()):
            hooks.enter_context(layer.register_forward_pre_hook(note, with_kwargs=True))
        for inputs, _ in batches:
            network(inputs)
    return layers, squares


def _squared(given: Any) -> Any:
    return given.square() if isinstance(given, Tensor) else given


def _within_outputs(scores: Tensor, layer: nn.Module) -> Tensor:
    """The ranks of a layer's scores among those of the same output."""
    if not isinstance(layer, TRANSPOSED):
        return _ranks(scores.flatten(1)).reshape(scores.shape)
    by_output = scores.unflatten(0, (layer.groups, -1)).transpose(1, 2)
    return _ranks(by_output.flatten(2)).reshape(by_output.shape).transpose(1, 2).reshape(scores.shape)


def _ranks(rows: Tensor) -> Tensor:
    """From 0 to 1: the share of its row that is lower, and among equal shares of several rows the larger score."""
    rows = rows.double().contiguous()
    lower = torch.searchsorted(rows.sort(-1).values, rows)
    return (lower + rows / rows.max().clamp(min=1e-300)) / rows.shape[-1]
