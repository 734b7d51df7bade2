"""Whether the dense network may be trained too briefly, so that a win over it may be a matter of training time."""

from __future__ import annotations

import math

from tombola.evidence import Verdict, deciding_interval, listed
from tombola.report.arms import ArmResults, GatheredArms
from tombola.report.prose import counted, share

LAST = 4
"""The last quarter of the epochs shows whether training had come to an end."""
NAMED = 3
"""So many tickets are named, and more are counted."""


def too_brief(study: GatheredArms) -> str:
    """That dense may be trained too briefly, with what speaks for it; "" if nothing does.

    It is so where a ticket is surely better than dense by more than the margin, and where the validation metric of
    dense rose by more than the margin in the last quarter of its epochs.
    """
    above = [own for own in study.verdicts if _far_above(own)]
    margin = max((own.margin for own in study.verdicts), default=math.inf)
    rose = [(arm, *found) for arm in study.arms if arm.role == "dense" and (found := _rise(arm)) and found[0] > margin]
    parts = [_risen(*own) for own in rose[:1]]
    if above:
        named = [f"{own.subject} at {share(own.density)}" for own in above]
        whose = listed(named) if len(named) <= NAMED else counted(len(named), "ticket")
        verb = "is" if len(named) == 1 else "are"
        parts.append(f"{whose} {verb} surely better than it by more than the margin")
    if not parts:
        return ""
    return (
        "The dense network may be trained too briefly, so that a win over it may be a matter of training time: "
        f"{listed(parts)}."
    )


def advice(study: GatheredArms) -> str:
    """What to do about it; "" where nothing speaks for it, or where dense was ranked at equal cost."""
    ranked = any(place.method == "dense" for own in study.rankings if own.equal_cost for place in own.places)
    if ranked or not too_brief(study):
        return ""
    return "--recipe.epochs trains all of them longer; with several methods, --equal-cost ranks dense at the same cost."


def _far_above(verdict: Verdict) -> bool:
    low, high, _ = deciding_interval(verdict, verdict.dense)
    worst = min(verdict.measure.sign * low, verdict.measure.sign * high)
    return worst > verdict.margin


def _rise(arm: ArmResults) -> tuple[float, int, int] | None:
    """How far the validation metric rose in the last epochs, mean over seeds; in how many, and of how many."""
    curves = [
        {
            row["epoch"]: row["validation_metric"]
            for row in result.history
            if {"epoch", "validation_metric"} <= row.keys()
        }
        for result in arm.results
    ]
    epochs = sorted(set.intersection(*map(set, curves)))
    if len(epochs) < 2:
        return None
    last = epochs[-1]
    before = [epoch for epoch in epochs if epoch <= last - last / LAST] or epochs[:1]
    rises = [arm.measure.sign * (own[last] - own[before[-1]]) for own in curves]
    rise = math.fsum(rises) / len(rises)
    return (rise, round(last - before[-1]), round(last)) if math.isfinite(rise) else None


def _risen(arm: ArmResults, rise: float, epochs: int, whole: int) -> str:
    verb = "fell" if arm.measure.lower else "rose"
    return (
        f"its validation {arm.measure.name} still {verb} by {arm.measure.amount(rise)} in the last "
        f"{'epoch' if epochs == 1 else f'{epochs} epochs'} of {whole}"
    )
