"""Why a verdict is what it is: the bound that decides against each arm, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tombola.evidence.arms import control_kind
from tombola.evidence.measure import Measure
from tombola.evidence.ruling import Requirement, Ruling
from tombola.evidence.statistics import Comparison
from tombola.registry import CONTROLS


def reasons(
    comparisons: Sequence[Comparison],
    requirements: Sequence[Requirement],
    found: Ruling,
    missing: Sequence[str] = (),
) -> tuple[str, ...]:
    """The reasons of a verdict, each a clause without a subject.

    Args:
        comparisons: the ticket minus each arm that decides.
        requirements: what must be shown of each.
        found: what is shown of each, without a further axis.
        missing: mandatory controls that did not run.
    """
    primary = comparisons[0].measure
    rows = list(zip(comparisons, requirements, found.worst.tolist(), found.best.tolist(), strict=True))
    if found.wins and not missing:
        kept = [_kept_up(primary, c, r, worst) for c, r, worst, _ in rows if r.above < 0]
        beaten = [f"{c.against} ({_at_least(c, worst)})" for c, r, worst, _ in rows if r.above == 0]
        return (*kept, f"better than {listed(beaten)}")
    if found.loses:
        return tuple(_failed(primary, c, r, best) for (c, r, _, best), no in zip(rows, found.failed, strict=True) if no)
    absent = (f"the control{'s' * (len(missing) > 1)} {listed(missing)} did not run",) if missing else ()
    if len(comparisons[0].differences) < 2:
        return (*absent, "one seed shows nothing")
    return (
        *absent,
        *(_open(primary, c, r, worst) for (c, r, worst, _), yes in zip(rows, found.met, strict=True) if not yes),
    )


def listed(parts: Iterable[str]) -> str:
    """Words as a list.

    Examples:
        >>> listed(["a", "b", "c"])
        'a, b and c'
    """
    *most, last = list(parts) or [""]
    return f"{', '.join(most)} and {last}" if most else last


def meaning_of(control: str) -> str:
    """What it means that a control does as well as the ticket; "" where nothing is known."""
    kind = control_kind(control)
    return CONTROLS.entry(kind).means if kind in CONTROLS and kind != "dense" else ""


def _kept_up(primary: Measure, c: Comparison, requirement: Requirement, worst: float) -> str:
    side = f"at worst {_below(c, worst)}" if worst < 0 else f"at least {_above(c, worst)}"
    margin = c.measure.limit(-requirement.above)
    return f"not worse than {_dense(c, primary)} by as much as the margin of {margin} ({side})"


def _failed(primary: Measure, c: Comparison, requirement: Requirement, best: float) -> str:
    mean = c.measure.sign * c.mean
    if requirement.above < 0 or not requirement.below:
        margin = c.measure.limit(-requirement.below)
        return f"{_below(c, mean)} {_dense(c, primary)}, more than the margin of {margin} (at least {_amount(c, best)})"
    means = meaning_of(c.against)
    at_most = _above(c, best) if best > 0 else _below(c, best)
    said = (
        f"not better than its control '{c.against}' by as much as the margin of {c.measure.limit(requirement.below)} "
        f"({c.measure.signed(c.mean)}, at most {at_most})"
    )
    return f"{said}: {means}" if means else said


def _open(primary: Measure, c: Comparison, requirement: Requirement, worst: float) -> str:
    mean = c.measure.signed(c.mean)
    unbounded = worst == float("-inf")
    if requirement.above < 0:
        margin = c.measure.limit(-requirement.above)
        if c.outcome == "worse":
            return f"worse than {_dense(c, primary)} ({mean}), but not surely by more than the margin of {margin}"
        how_far = "" if unbounded else f", perhaps {_below(c, worst)}"
        return f"not surely within {margin} of {_dense(c, primary)} ({mean}{how_far})"
    if c.outcome == "worse":
        return f"worse than its control '{c.against}' ({mean}), but that is not sure enough among several arms"
    how_far = "" if unbounded else f", perhaps {_below(c, worst)}"
    return f"not surely better than its control '{c.against}' ({mean}{how_far})"


def _dense(c: Comparison, primary: Measure) -> str:
    """The dense network, with the measure where that is a further one."""
    return "dense" if c.measure == primary else f"dense in {c.measure.name}"


def _amount(c: Comparison, value: float) -> str:
    return c.measure.amount(value)


def _above(c: Comparison, value: float) -> str:
    return f"{_amount(c, value)} {'below' if c.measure.lower else 'above'}"


def _below(c: Comparison, value: float) -> str:
    return f"{_amount(c, value)} {'above' if c.measure.lower else 'below'}"


def _at_least(c: Comparison, worst: float) -> str:
    return f"by {_amount(c, worst)} at least"
