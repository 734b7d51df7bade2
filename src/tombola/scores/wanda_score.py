"""Wanda: magnitude times the norm of the inputs that a weight multiplies."""

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
from tombola.structure import is_producer, is_transposed


@dataclass(frozen=True)
class Wanda(WeightScore):
    """|w| · ‖x‖₂, ranked among the weights of the same output (Sun et al., ICLR 2024).

    x holds all inputs that the weight multiplies. A score is a rank from 0 to 1, so that at every scope each output
    keeps the same share of its weights, to within one weight. The network is in evaluation mode.

    Args:
        batches: how many batches to read.

    Raises:
        TombolaError: a prunable weight does not belong to a linear or convolution layer, or its layer is not called.

    Examples:
        >>> layer = nn.Linear(2, 1)
        >>> layer.weight.data = torch.tensor([[1.0, 2.0]])
        >>> Wanda()(layer, [(torch.tensor([[3.0, 1.0]]), None)])["weight"].argmax().item()
        0
    """

    batches: int = 1

    name: ClassVar[str] = "wanda"
    needs: ClassVar[Needs] = "data"

    def measure(self, network: Pure, data: Data) -> Scores:
        layers, squares = _input_squares(network, data.batches)
        missing = next((name for name in network.weights if name not in squares), None)
        if missing is not None:
            raise TombolaError(
                f"the score '{self.name}' reads the inputs of linear and convolution layers, and '{missing}' is "
                f"not the weight of one; leave it out: Prunable(exclude=('{missing}',))"
            )
        return {n: _within_outputs(v.abs_() * squares[n].sqrt(), layers[n]) for n, v in network.values.items()}


def _input_squares(network: Pure, batches: Iterable[Batch]) -> tuple[dict[str, nn.Module], dict[str, Tensor]]:
    """The layer of each weight, and the sum of squares of the inputs that the weight multiplies.

    If a layer is called on its squared inputs, that sum is the gradient of the sum of its outputs.
    """
    # By identity: the network swaps these very tensors into the layers.
    names = {id(weight): name for name, weight in network.weights.items()}
    layers: dict[str, nn.Module] = {}
    squares: dict[str, Tensor] = {}

    def add_squares(layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        weight = layer._parameters.get("weight")
        if weight is not None and id(weight) in names:
            name = names[id(weight)]
            with torch.enable_grad():
                # `forward` itself, since a call would run this hook again.
                outputs = layer.forward(*map(_squared, args), **{key: _squared(arg) for key, arg in kwargs.items()})
                (sums,) = torch.autograd.grad(outputs.sum(), weight)
            layers[name], squares[name] = layer, sums + squares.get(name, 0)

    with torch.no_grad(), ExitStack() as hooks:
        for layer in filter(is_producer, network.model.modules()):
            hooks.enter_context(layer.register_forward_pre_hook(add_squares, with_kwargs=True))
        for inputs, _ in batches:
            network(inputs)
    return layers, squares


def _squared(argument: Any) -> Any:
    return argument.square() if isinstance(argument, Tensor) else argument


def _within_outputs(scores: Tensor, layer: nn.Module) -> Tensor:
    """The ranks of a layer's scores among those of the same output."""
    # A transposed convolution has weights (inputs, outputs of a group, …), and its inputs lie in groups.
    if not is_transposed(layer):
        return _ranks(scores.flatten(1)).reshape(scores.shape)
    by_output = scores.unflatten(0, (getattr(layer, "groups", 1), -1)).transpose(1, 2)
    return _ranks(by_output.flatten(2)).reshape(by_output.shape).transpose(1, 2).reshape(scores.shape)


def _ranks(rows: Tensor) -> Tensor:
    """From 0 to 1: the share of the row that is lower. The scores themselves break ties between rows."""
    rows = rows.double().contiguous()
    lower = torch.searchsorted(rows.sort(-1).values, rows)
    return (lower + rows / rows.max().clamp(min=1e-300)) / rows.shape[-1]
