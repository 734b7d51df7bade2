"""Scores that need no data: random, magnitude, SynFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores.evaluate import gradients_of, ranking, take, untouched
from tombola.scores.types import Batches, Loss, Scores, View
from tombola.structure import BATCH_NORMS, Prunable, norm_units


@dataclass(frozen=True)
class Random:
    """A uniform random number for each weight, from the seed."""

    name: ClassVar[str] = "random"
    needs_data: ClassVar[bool] = False

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores:
        generator = torch.Generator().manual_seed(view.get("seed", 0))
        with untouched(model, mode="eval", **view) as network:
            return {
                name: torch.rand(weight.shape, generator=generator, dtype=torch.float64).to(weight.device)
                for name, weight in network.weights.items()
            }


@dataclass(frozen=True)
class Magnitude:
    """|w| (Han et al., NeurIPS 2015); after training it is the score of IMP (Frankle, Carbin, ICLR 2019)."""

    name: ClassVar[str] = "magnitude"
    needs_data: ClassVar[bool] = False

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores:
        with untouched(model, mode="eval", **view) as network:
            return {name: value.abs_() for name, value in network.values.items()}


@dataclass(frozen=True)
class BatchNormScale:
    """|γ| of every batch norm's channel, whatever `prunable` says (network slimming, Liu et al., ICCV 2017)."""

    name: ClassVar[str] = "batch-norm-scale"
    needs_data: ClassVar[bool] = False

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores:
        norm_units(model)
        view["prunable"] = Prunable(types=BATCH_NORMS)
        with untouched(model, mode="eval", **view) as network:
            return {name: value.abs_() for name, value in network.values.items()}


@dataclass(frozen=True)
class SynFlow:
    """Synaptic flow |w · ∂R/∂w|, R = the outputs' sum for one all-ones input with absolute parameters and buffers.

    No data but the shape of one input; in float64, evaluation mode (Tanaka et al., NeurIPS 2020). The paper
    applies it in 100 rounds with densities d^(t/100).
    """

    name: ClassVar[str] = "synflow"
    needs_data: ClassVar[bool] = True

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores:
        ((inputs, _),) = take(batches, 1, self.name)
        with untouched(model, mode="eval", dtype=torch.float64, **view) as network:
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
