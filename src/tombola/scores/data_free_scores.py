"""Scores that need no data: random, magnitude, the scales of batch norm, SynFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.nested import leaves_of, mapped, tensors_in
from tombola.scores.evaluation import Pure, check_some_nonzero, gradients_of
from tombola.scores.kinds import Data, Needs, UnitScore, WeightScore
from tombola.scores.types import Scores, View
from tombola.structure import BATCH_NORMS, Prunable, norm_units


@dataclass(frozen=True)
class Random(WeightScore):
    """A uniform random number for each weight, from the view's seed. The baseline of every score.

    Examples:
        >>> scores = Random()(nn.Linear(3, 2), seed=1)
        >>> torch.equal(scores["weight"], Random()(nn.Linear(3, 2), seed=1)["weight"])
        True
    """

    name: ClassVar[str] = "random"
    takes_complex: ClassVar[bool] = True

    def measure(self, network: Pure, data: Data) -> Scores:
        generator = torch.Generator().manual_seed(data.seed)
        return {
            # Drawn on the CPU, so that all devices draw the same; in float64, so that ties hardly occur.
            name: torch.rand(weight.shape, generator=generator, dtype=torch.float64).to(weight.device)
            for name, weight in network.weights.items()
        }


@dataclass(frozen=True)
class Magnitude(WeightScore):
    """|w|, of a complex weight its modulus (Han et al., NeurIPS 2015).

    After training it is the score of IMP (Frankle, Carbin, ICLR 2019).

    Examples:
        >>> layer = nn.Linear(2, 1)
        >>> layer.weight.data = torch.tensor([[-2.0, 0.5]])
        >>> Magnitude()(layer)
        {'weight': tensor([[2.0000, 0.5000]])}
    """

    name: ClassVar[str] = "magnitude"
    takes_complex: ClassVar[bool] = True

    def measure(self, network: Pure, data: Data) -> Scores:
        return {n: value.abs() if value.is_complex() else value.abs_() for n, value in network.values.items()}


@dataclass(frozen=True)
class BatchNormScale(UnitScore):
    """|γ| of every channel of batch norm, whatever `prunable` says (network slimming, Liu et al., ICCV 2017).

    Examples:
        >>> BatchNormScale()(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
        {'1.weight': tensor([1., 1.])}
    """

    name: ClassVar[str] = "batch-norm-scale"

    def evaluated(self, model: nn.Module, view: View) -> Any:
        norm_units(model)  # raises TombolaError for a network without batch norm
        return super().evaluated(model, {**view, "prunable": Prunable(types=BATCH_NORMS)})

    def measure(self, network: Pure, data: Data) -> Scores:
        return {name: value.abs_() for name, value in network.values.items()}


@dataclass(frozen=True)
class SynFlow(WeightScore):
    """Synaptic flow |w · ∂R/∂w| (Tanaka et al., NeurIPS 2020).

    R is the sum of the outputs for one all-ones input, with the absolute values of all parameters and buffers. The
    score reads only the shape of one input. It computes in evaluation mode and in float64, since products over many
    layers leave float32's range. The paper applies it in 100 rounds with densities d^(t/100).

    Examples:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> layer.weight.data = torch.tensor([[-2.0, 0.5]])
        >>> SynFlow()(layer, [(torch.zeros(1, 2), None)])
        {'weight': tensor([[2.0000, 0.5000]], dtype=torch.float64)}
    """

    name: ClassVar[str] = "synflow"
    needs: ClassVar[Needs] = "an input's shape"
    precision: ClassVar[torch.dtype] = torch.float64

    def measure(self, network: Pure, data: Data) -> Scores:
        ((inputs, _),) = data.batches
        # In place, to save a copy. Values that share this memory become positive too, as the score's abs makes them.
        network.weights = {n: w.detach().abs_().requires_grad_() for n, w in network.weights.items()}
        network.others = {n: t.abs() if t.is_floating_point() else t for n, t in network.others.items()}
        flow = _sum_of(network(_ones(inputs)))
        gradients = check_some_nonzero(gradients_of(flow, network.weights), network)
        return {n: v.mul_(g).abs_() for (n, v), g in zip(network.values.items(), gradients, strict=True)}


def _ones(inputs: Any) -> Any:
    """One all-ones sample of the inputs' shape."""
    if not all(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in leaves_of(inputs)):
        raise TombolaError(
            "SynFlow needs an all-ones input, and this network's inputs are not floating point tensors alone; use "
            "another score"
        )
    return mapped(inputs, lambda tensor: torch.ones_like(tensor[:1]))


def _sum_of(outputs: Any) -> Tensor:
    """The sum of all numbers in the tensors of a nest."""
    return torch.stack([tensor.sum() for tensor in tensors_in(outputs)]).sum()
