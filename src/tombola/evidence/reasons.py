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
        kept = [_kept_up(primary, c, r, worst) for c, r, worst, _ in rows if not r.is_control]
        beaten = [(c, worst) for c, r, worst, _ in rows if r.is_control]
        least = listed(primary.amount(worst).removesuffix(" points") for _, worst in beaten)
        unit = " points" if primary.share else ""
        return (*kept, f"better than {listed(c.against for c, _ in beaten)} by at least {least}{unit}")
    if found.loses:
        return tuple(_failed(primary, c, r, best) for (c, r, _, best), no in zip(rows, found.failed, strict=True) if no)
    absent = (f"the control{'s' * (len(missing) > 1)} {listed(missing)} did not run",) if missing else ()
    if len(comparisons[0].differences) < 2:
        return (*absent, "one seed shows nothing")
    unmet = [(c, r, worst) for (c, r, worst, _), met in zip(rows, found.met, strict=True) if not met]
    behind = [_behind(primary, c, r, worst) for c, r, worst in unmet if not r.is_control]
    level = [f"{c.against} ({c.measure.signed(c.mean)})" for c, r, _ in unmet if r.is_control]
    return (*absent, *behind, *([f"not surely better than {listed(level)}"] if level else []))


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
    dense, margin = _dense(c, primary), c.measure.limit(requirement.margin).removesuffix(" points")
    if worst >= 0:
        return f"at least {_above(c, worst)} {dense}"
    return f"at worst {_below(c, worst)} {dense}, less than the margin of {margin}"


def _failed(primary: Measure, c: Comparison, requirement: Requirement, best: float) -> str:
    mean, margin = c.measure.sign * c.mean, c.measure.limit(requirement.margin).removesuffix(" points")
    if not requirement.is_control:
        least = c.measure.amount(best).removesuffix(" points")
        return f"{_below(c, mean)} {_dense(c, primary)}, at least {least} and so more than the margin of {margin}"
    at_most = f"at most {_above(c, best)}" if best > 0 else f"at least {_below(c, best)}"
    means = meaning_of(c.against)
    said = f"not better than {c.against} by the margin of {margin} ({c.measure.signed(c.mean)}, {at_most} it)"
    return f"{said}: {means}" if means else said


def _behind(primary: Measure, c: Comparison, requirement: Requirement, worst: float) -> str:
    mean, margin = c.measure.signed(c.mean), c.measure.limit(requirement.margin)
    if c.outcome == "worse":
        return f"worse than {_dense(c, primary)} ({mean}), but not surely by more than the margin of {margin}"
    how_far = "" if worst == float("-inf") else f", perhaps {_below(c, worst)} it"
    return f"not surely within {margin} of {_dense(c, primary)} ({mean}{how_far})"


def _dense(c: Comparison, primary: Measure) -> str:
    """The dense network, with the measure where that is a further one."""
    return "dense" if c.measure == primary else f"dense in {c.measure.name}"


def _above(c: Comparison, value: float) -> str:
    return f"{c.measure.amount(value)} {'below' if c.measure.lower else 'above'}"


def _below(c: Comparison, value: float) -> str:
    return f"{c.measure.amount(value)} {'above' if c.measure.lower else 'below'}"
