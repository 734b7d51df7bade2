"""Scores with a sign, summed over units: what is left of them behind a norm."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from typing import Any

from torch import nn

from tombola.errors import TombolaError
from tombola.structure import NM, Blocks, Granularity, Probe, QueryKey, Weights, norms_behind, scale_undone


def as_summed(score: Any, granularity: Granularity, model: nn.Module, probe: Probe) -> Any:
    """The score in the mode in which its sum over a unit's weights says something.

    Σ w · ∂L/∂w over weights is how the loss changes with their common scale. A norm right behind them undoes that
    scale, so that the sum is 0 but for the norm's ε: ten times the ε, ten times the score. In evaluation mode batch
    norm is a fixed map, which undoes nothing.

    Args:
        score: any score; one whose `cancels` is True is such a product with its sign.
        granularity: what is removed together.
        model: the network.
        probe: calls it on an example of its inputs.

    Returns:
        The score itself, or the same one in evaluation mode.

    Raises:
        TombolaError: if the norms have no running statistics, or the score needs a training.

    Examples:
        >>> import torch
        >>> from tombola.scores import GraspFirstOrder
        >>> from tombola.structure import Channels
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        >>> as_summed(GraspFirstOrder(), Channels(), model, lambda model: model(torch.ones(1, 1, 4, 4)))
        GraspFirstOrder(batches=1, batch_norm='eval')
    """
    inner = getattr(score, "score", None)
    if inner is not None and is_dataclass(score):  # a score of another's order, as the inverted one
        return replace(score, score=as_summed(inner, granularity, model, probe))
    if not getattr(score, "cancels", False) or isinstance(granularity, Weights | NM | QueryKey):
        return score
    norms, each = norms_behind(model, probe), not isinstance(granularity, Blocks)
    mode = getattr(score, "batch_norm", "train")
    if mode == "train" and _undone(norms, each, mode) and hasattr(score, "batch_norm"):
        score, mode = replace(score, batch_norm="eval"), "eval"
    if undone := _undone(norms, each, mode):
        raise TombolaError(
            f"the score '{score.name}' has a sign, and its sum over the weights of a {granularity.name} is 0 behind a "
            f"norm, as behind '{undone[0]}': the norm undoes the scale of these weights; use snip, taylor or magnitude"
        )
    return score


def _undone(norms: dict[str, nn.Module], each: bool, mode: str) -> list[str]:
    return [name for name, norm in norms.items() if scale_undone(norm, each, mode)]
