"""The range of an axis that shows what can be told apart, whatever lies far off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tombola.evidence import ACCURACY, Measure
from tombola.report.chart_rows import Row

FAR = 3.0
"""An arm is far off if it lies so many times as far below the best as those before it."""
CLOSE = 5.0
"""Points of a share within which nothing is far off."""
FEW = 1 / 3
"""The largest share of the marks that may lie far off; the axis shows what is nearest of more."""


def near_the_best(values: Sequence[float], measure: Measure = ACCURACY) -> list[float]:
    """The values without those far worse than the others: networks that collapsed or never began to learn.

    Values are taken from the best on, until the next lies `FAR` times as far from the best as all that were taken, and
    only a few are left.

    Args:
        values: a share in percent, or the measure's own numbers.
        measure: which way is better.

    Examples:
        >>> near_the_best([98.9, 98.2, 93.0, 64.6, 98.5])
        [98.9, 98.5, 98.2, 93.0]
        >>> near_the_best([98.9, 80.0, 79.0, 10.0])
        [98.9, 80.0, 79.0]
    """
    if not values:
        return []
    ordered = sorted(values, key=lambda value: -measure.sign * value)
    best = ordered[0]
    reach = CLOSE if measure.share else 0.05 * max(abs(best), abs(ordered[len(ordered) // 2]))
    taken = []
    for value in ordered:
        distance = abs(best - value)
        if distance > FAR * reach and len(ordered) - len(taken) <= FEW * len(ordered):
            break
        reach = max(reach, distance)
        taken.append(value)
    return taken


def bounds(rows: Iterable[Row | None], measure: Measure = ACCURACY, also: Sequence[float] = ()) -> tuple[float, float]:
    """The range of an axis, for a share in percent.

    It shows every mean but those far off, which are marked at the edge. Wide intervals are cut: they may stretch the
    range on each side by half of that of the means, or half a point if that is more, so that one noisy arm does not
    flatten the others.

    Args:
        rows: with mean, low and high; None stands for an arm that is not there.
        measure: what the numbers are.
        also: values that the axis must show, too.
    """
    known = [row for row in rows if row is not None]
    if not known:
        return 0.0, 100.0
    means = near_the_best([row["mean"] for row in known], measure)
    shown = [row for row in known if row["mean"] in means]
    bottom, top = min(means), max(means)
    least = 0.5 if measure.share else 0.01 * max(abs(top), abs(bottom))
    stretch = max(0.5 * (top - bottom), least)
    lows = [row["low"] for row in shown if row["low"] is not None]
    highs = [row["high"] for row in shown if row["high"] is not None]
    low, high = max(min([bottom, *lows]), bottom - stretch), min(max([top, *highs]), top + stretch)
    low, high = min([low, *also]), max([high, *also])
    margin = max(0.06 * (high - low), least / 5)
    return low - margin, high + margin


def placed(rows: Iterable[Row], low: float, high: float) -> list[Row]:
    """The rows with where each mark stands: at the edge of the axis, if its mean lies beyond.

    `place` is the mark's place; `beyond` is "below" or "above" at an edge and "" within, `said` the mean at an edge.
    """
    marked = []
    for row in rows:
        mean = row["mean"]
        beyond = "below" if mean < low else "above" if mean > high else ""
        said = f"{mean:.3g}".replace("-", "−") if beyond else ""
        marked.append(row | {"place": min(max(mean, low), high), "beyond": beyond, "said": said})
    return marked
