"""Scores that need no data: random, magnitude, batch norm's scales, SynFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores.evaluation import Pure, gradients_of, ranking
from tombola.scores.kinds import Data, Needs, UnitScore, WeightScore
from tombola.scores.types import Scores, View
from tombola.structure import BATCH_NORMS, Prunable, norm_units


@dataclass(frozen=True)
class Random(WeightScore):
    """A uniform random number for each weight, from the seed."""

    name: ClassVar[str] = "random"

    def measure(self, network: Pure, data: Data) -> Scores:
        generator = torch.Generator().manual_seed(data.seed)
        return {
            name: torch.rand(weight.shape, generator=generator, dtype=torch.float64).to(weight.device)
            for name, weight in network.weights.items()
        }


@dataclass(frozen=True)
class Magnitude(WeightScore):
    """|w| (Han et al., NeurIPS 2015); after training it is the score of IMP (Frankle, Carbin, ICLR 2019)."""

    name: ClassVar[str] = "magnitude"

    def measure(self, network: Pure, data: Data) -> Scores:
        return {name: value.abs_() for name, value in network.values.items()}


@dataclass(frozen=True)
class BatchNormScale(UnitScore):
    """|γ| of every batch norm's channel, whatever `prunable` says (network slimming, Liu et al., ICCV 2017)."""

    name: ClassVar[str] = "batch-norm-scale"

    def evaluated(self, model: nn.Module, view: View) -> Any:
        norm_units(model)  # refuses a network that has none
        return super().evaluated(model, {**view, "prunable": Prunable(types=BATCH_NORMS)})

    def measure(self, network: Pure, data: Data) -> Scores:
        return {name: value.abs_() for name, value in network.values.items()}


@dataclass(frozen=True)
class SynFlow(WeightScore):
    """Synaptic flow |w · ∂R/∂w|, R = the outputs' sum for one all-ones input with absolute parameters and buffers.

    No data but the shape of one input; in float64, evaluation mode (Tanaka et al., NeurIPS 2020). The paper
    applies it in 100 rounds with densities d^(t/100).
    """

    name: ClassVar[str] = "synflow"
    needs: ClassVar[Needs] = "an input's shape"
    precision: ClassVar[torch.dtype] = torch.float64

    def measure(self, network: Pure, data: Data) -> Scores:
        ((inputs, _),) = data.batches
        network.weights = {n: w.detach().abs_().requires_grad_() for n, w in network.weights.items()}
        network.others = {n: t.abs() if t.is_floating_point() else t for n, t in network.others.items()}
        flow = _total(network(_ones(inputs)))
        gradients = ranking(gradients_of(flow, network.weights), network)
        return {n: v.mul_(g).abs_() for (n, v), g in zip(network.values.items(), gradients, strict=True)}


def _ones(inputs: Any) -> Any:
    """One all-ones sample of the inputs' shape."""
    if isinstance(inputs, dict):
        return {key: _ones(value) for key, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(_ones(value) for value in inputs)
    if not (isinstance(inputs, Tensor) and inputs.is_floating_point()):
        raise TombolaError(
            "SynFlow feeds an all-ones input, which these inputs (not floating point) do not allow; use another score"
        )
    return torch.ones_like(inputs[:1])


def _total(outputs: Any) -> Tensor:
    if isinstance(outputs, Tensor):
        return outputs.sum()
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return torch.stack([_total(part) for part in parts]).sum()
