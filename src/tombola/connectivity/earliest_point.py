"""The earliest point from which training is stable, by bisection."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tombola.connectivity.instability import Point


def bisected(
    measured: Sequence[Point], steps: int, end: int, measure: Callable[[Sequence[str]], list[Point]]
) -> list[Point]:
    """More points, between the last unstable one and the first stable one after it, until they are close.

    Args:
        measured: the points that are known.
        steps: of an epoch; a sixteenth of it is close.
        end: the step at which training ends.
        measure: gives points by their names.
    """
    close, found = max(1, steps // 16), list(measured)
    while True:
        low = max((point.step for point in found if not point.stable), default=-1)
        later = [point.step for point in found if point.stable and point.step > low]
        high = min(later, default=None)
        if high == 0 or (high is not None and high - low <= close):
            break
        if high is None:
            middle = min(max(2 * low, steps), end - steps)
            if middle <= low:
                break
        else:
            middle = 0 if low < 0 else (low + high) // 2
        (point,) = measure([f"{middle}it"])
        found.append(point)
    return found[len(measured) :]
