"""The options on what a smaller network shall be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tombola.errors import TombolaError
from tombola.structure import Granularity


@dataclass(frozen=True)
class TargetOptions:
    """What the smaller network shall be, for methods that remove units; the density is then solved for."""

    flops: float | None = None
    """floating-point operations that stay at most: a share of the whole network's, as 0.5, or their number a sample"""
    parameters: float | None = None
    """parameters that stay at most: a share of the whole network's, or their number; also for single weights"""
    speedup: float | None = None
    """how many times as fast as the whole network, as PyTorch calls it here"""
    latency: float | None = None
    """seconds of a call at most, as PyTorch calls it here"""
    target_batch: int = 16
    """samples in a call whose time is measured, for --speedup and --latency"""
    round_to: int = 1
    """what the widths that stay are multiples of, as 8, where a layer is as wide"""
    protect: tuple[str, ...] = ()
    """names of layers that lose nothing, or patterns, as 'layer4.*'"""

    def arguments(self) -> dict[str, Any]:
        """What `find` and `compare` are called with: what was typed."""
        usual = asdict(TargetOptions())
        typed = {name: value for name, value in asdict(self).items() if value != usual[name]}
        if "target_batch" in typed:
            typed["samples"] = typed.pop("target_batch")
        return typed

    def suited(self, kind: Granularity, words: Sequence[str]) -> TargetOptions:
        """The options for units of a kind, which have no widths to round unless `--round-to` was typed."""
        keeps = hasattr(kind, "round_to") or any(word.startswith("--round-to") for word in words)
        return self if keeps else replace(self, round_to=1)

    def check(self, words: Sequence[str], *sizes: str) -> None:
        """TombolaError if a size was typed, too; sizes: the options' names."""
        asked = [name for name in ("flops", "parameters", "speedup", "latency") if getattr(self, name) is not None]
        typed = next((size for size in sizes if any(word.partition("=")[0] == size for word in words)), "")
        if asked and typed:
            raise TombolaError(f"{typed} and --{asked[0]} both say how much stays; leave one out")
