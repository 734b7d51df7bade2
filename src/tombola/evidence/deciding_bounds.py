"""The intervals whose ends decide a verdict, and which its reason names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from tombola.evidence.looks import EachSeed
from tombola.evidence.statistics import ALPHA, ONE_LOOK, Comparison, at_level

Interval = tuple[float, float, float]
"""Lower end, upper end, and with what chance it holds."""


class Judged(Protocol):
    """What is asked of a verdict here."""

    @property
    def wins(self) -> bool | None: ...
    @property
    def most(self) -> int | None: ...
    @property
    def dense(self) -> Comparison: ...
    @property
    def mandatory(self) -> tuple[Comparison, ...]: ...
    @property
    def also(self) -> tuple[Comparison, ...]: ...


def deciding_interval(verdict: Judged, own: Comparison) -> Interval:
    """The interval of a comparison of which one end decided, or would decide, the verdict.

    A ticket wins by lower ends: those of the 90 % interval against dense, and of the 95 % interval against a control.
    It does not win by an upper end, of an interval that is wider since any comparison may rule a win out.

    Args:
        verdict: the verdict.
        own: one of its comparisons.

    Returns:
        The interval; of a control that decides nothing, the one off which its outcome is read.
    """
    against_dense = (verdict.dense, *verdict.also)
    if own not in (*against_dense, *verdict.mandatory):
        return own.decisive
    alpha = ALPHA if own in against_dense else ALPHA / 2
    if verdict.wins is False:
        alpha = ALPHA / len((*against_dense, *verdict.mandatory))
    drawn = at_level(own, 2 * alpha, EachSeed(verdict.most) if verdict.most else ONE_LOOK)
    return drawn.low, drawn.high, 1 - 2 * alpha


def hardest_control(verdict: Judged, controls: Sequence[Comparison]) -> Comparison | None:
    """The control that decides: the one that rules a win out, else the one that is beaten by least at worst.

    Args:
        verdict: the verdict.
        controls: all that ran; only mandatory ones decide, where there are any.
    """

    def ends(own: Comparison) -> tuple[float, float]:
        low, high, _ = deciding_interval(verdict, own)
        worst, best = sorted((own.measure.sign * low, own.measure.sign * high))
        return worst, best

    candidates = verdict.mandatory or tuple(controls)
    failed = [own for own in candidates if verdict.wins is False and ends(own)[1] < own.margin]
    if failed:
        return min(failed, key=lambda own: ends(own)[1])
    return min(candidates, key=lambda own: (ends(own)[0], own.measure.sign * own.mean), default=None)


def level_words(verdict: Judged) -> str:
    """What says that the reason's bounds are ends of other intervals than those of the outcomes; "" if they are not."""
    against_dense = (verdict.dense, *verdict.also)
    if not all(math.isfinite(own.low) for own in against_dense):
        return ""
    if verdict.wins is False:
        count = len((*against_dense, *verdict.mandatory))
        level = f"{100 * (1 - 2 * ALPHA / count):.3g} %"
        return (
            f"“At least” and “at most” are ends of {level} intervals, as any of {count} comparisons may rule a win out."
        )
    if any(own.outcome == ("better" if verdict.wins else "undecided") for own in against_dense):
        return f"How far it is from dense at worst is an end of the {100 * (1 - 2 * ALPHA):.3g} % interval."
    return ""
