"""The options on how verdicts are decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tombola.evidence import EachSeed


@dataclass(frozen=True)
class DecidingOptions:
    """How verdicts are decided."""

    until_decided: bool = False
    """look after each seed from the third, and stop each verdict as soon as it is decided or more seeds are futile;
    --seeds is then the most, 20 if not given. Wrong verdicts stay as rare as with one look"""
    budget: str = ""
    """with --until-decided: begin no seed that would end after this time, as 20m or 1.5h"""
    also: tuple[str, ...] = ()
    """further measures in which a ticket may not be worse than dense: loss, training-seconds, step-memory,
    calibration-error, latency (seconds a sample), or a metric that `tombola methods metrics` lists"""
    better: Literal["", "lower", "higher"] = ""
    """which values of the task's metric are better; if not given, of a metric of yours what its name says"""

    def arguments(self, seeds: int | None, usual: int) -> Mapping[str, Any]:
        """What `compare` is called with.

        Args:
            seeds: as typed.
            usual: how many where they are fixed and none is typed.
        """
        most = EachSeed.most if self.until_decided else usual
        return {
            "seeds": most if seeds is None else seeds,
            "until": "decided" if self.until_decided else "seeds",
            "budget": self.budget or None,
            "also": self.also,
            "measure": self.better or None,
        }
