"""Numbers and verdicts as a reader wants them: short, with their unit, and honest about what is not known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tombola.evidence import MANDATORY, Comparison, Verdict
from tombola.report.arms import ArmResults, GatheredArms
from tombola.studies import in_words, under

NOTHING = "–"
WORDS = {True: "wins", False: "does not win", None: "undecided"}
MARKS = {True: "✓", False: "✗", None: "?"}
SPACE = "\u00a0"
MEASURES = {
    "seconds": "time",
    "flops": "FLOPs",
    "step_memory": "memory of a step",
    "peak_memory": "peak memory",
    "energy": "energy",
    "carbon": "CO₂e",
}


def share(value: float) -> str:
    """A density or sparsity in percent with four digits at most.

    Examples:
        >>> share(0.05), share(1 - 0.0144)
        ('5\\xa0%', '98.56\\xa0%')
    """
    return f"{100 * value:.4g}{SPACE}%"


def percent(value: float | None) -> str:
    return NOTHING if value is None or math.isnan(value) else f"{value:.2f}{SPACE}%"


def between(low: float | None, high: float | None, sign: str = "") -> str:
    """An interval in percent or points, or a dash where there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return NOTHING
    return f"[{low:{sign}.2f}, {high:{sign}.2f}]".replace("-", "−").replace(" ", SPACE)


def saved(value: float | None) -> str:
    """A share that was saved, in percent; below 0 where more was spent.

    Examples:
        >>> saved(0.125), saved(-2.0), saved(None)
        ('12.5\\xa0%', '−200.0\\xa0%', '–')
    """
    return NOTHING if value is None else f"{100 * value:.1f}{SPACE}%".replace("-", "−")


def points(value: float | None) -> str:
    """A difference of two shares, given in points.

    Examples:
        >>> points(-0.123)
        '−0.12'
    """
    return NOTHING if value is None or not math.isfinite(value) else f"{value:+.2f}".replace("-", "−")


def number(value: float | None) -> str:
    """A count or a measure with three digits and a thousands prefix.

    Examples:
        >>> number(60000.0), number(0.25), number(None)
        ('60\\xa0k', '0.25', '–')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return f"{_three(value / size)}{SPACE}{prefix}"
    return _three(value)


def duration(seconds: float | None) -> str:
    """Seconds in the unit that a clock would use.

    Examples:
        >>> duration(3.14159), duration(200), duration(7300)
        ('3.14\\xa0s', '3.3\\xa0min', '2.0\\xa0h')
    """
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 100:
        return f"{seconds:.3g}{SPACE}s"
    return f"{seconds / 60:.1f}{SPACE}min" if seconds < 6000 else f"{seconds / 3600:.1f}{SPACE}h"


def counted(count: int, thing: str, things: str = "") -> str:
    return f"{count} {thing if count == 1 else things or f'{thing}s'}"


def verdict_word(study: GatheredArms, arm: ArmResults) -> str:
    """The verdict on a ticket in one or two words; nothing for dense and controls."""
    verdict = None if arm.role != "ticket" else study.verdict(arm)
    return "" if verdict is None else WORDS[verdict.wins]


def summary(study: GatheredArms) -> str:
    """Two sentences: what was compared with what result, and the sparsest winner if there is one."""
    densities = counted(len(study.densities), "density", "densities")
    scope = f"{counted(len(study.methods), 'method')} at {densities} over {counted(len(study.seeds), 'seed')}"
    if study.sanity:
        found = [check.finding for own in study.sanity for check in own.checks if check.comparison is not None]
        tally = (("passed", "passes"), ("failed", "fails"), ("undecided", "undecided"))
        counts = [f"{found.count(own)} {word}" for word, own in tally if own in found]
        return f"Of {counted(len(found), 'sanity check')} ({scope}), {_and(counts)}."
    if not study.verdicts:
        return f"This report shows {scope}. No verdict was asked for, so nothing is proven here yet."
    first = f"Of {counted(len(study.verdicts), 'ticket')} tried ({scope}), {_and(_tally(study))}."
    winners = [v for v in study.verdicts if v.wins]
    if not winners:
        return f"{first} No ticket was shown to keep up with the dense network and to beat its controls."
    best = min(winners, key=lambda v: (v.density, -v.dense.mean))
    return (
        f"{first} The sparsest winner is {best.subject}, which keeps {share(best.density)} of its units and comes to "
        f"{percent(100 * best.means['ticket'])}, {points(100 * best.dense.mean)} points from dense, while every "
        "mandatory control falls behind it."
    )


def reason(verdict: Verdict) -> str:
    """Why the verdict is what it is, in one or two sentences."""
    dense, margin = verdict.dense, 100 * verdict.margin
    missing = [name for name in MANDATORY if name not in {c.against for c in verdict.controls}]
    groups = {
        outcome: [c.against for c in verdict.controls if c.outcome == outcome and c.against in MANDATORY]
        for outcome in ("better", "worse", "equivalent", "undecided")
    }
    if verdict.wins:
        return f"Not worse than dense by more than {margin:g} points, and better than {_and(groups['better'])}."
    if verdict.wins is False:
        causes = [f"is worse than dense by more than {margin:g} points"] if dense.high90 < -verdict.margin else []
        if beaten := groups["worse"] + groups["equivalent"]:
            causes.append(f"is not better than its control{'s' if len(beaten) > 1 else ''} {_and(beaten)}")
        return f"It {_and(causes)}."
    if len(verdict.seeds) < 2:
        return "One seed can decide nothing: run more."
    causes = [f"the control{'s' if len(missing) > 1 else ''} {_and(missing)} did not run"] if missing else []
    if not dense.low90 > -verdict.margin:
        causes.append(f"these seeds do not exclude that it is worse than dense by more than {margin:g} points")
    if groups["undecided"]:
        causes.append(f"they cannot tell it from {_and(groups['undecided'])}")
    text = _and(causes) or "the evidence is mixed"
    return f"{text[0].upper()}{text[1:]}."


def estimate(study: GatheredArms) -> str:
    """How energy and carbon were estimated, or how they can be."""
    if not study.countries:
        return "Energy and carbon were not metered; --country with a country's ISO code, as DEU, estimates them."
    return (
        "Energy and carbon are estimates by codecarbon: kWh = mean power × seconds, kg CO₂e = kWh × the intensity of "
        f"the grid of {_and(study.countries)}."
    )


def mixed_conditions(study: GatheredArms) -> str:
    """What there is to say where results were made under several conditions; nothing where they were not."""
    made: dict[str, int] = {}
    for arm in study.arms:
        for result in arm.results:
            if held := under(result.settings):
                made[in_words(held)] = made.get(in_words(held), 0) + 1
    if len(made) < 2:
        return ""
    told = _and([f"{counted(count, 'result')} with {words}" for words, count in made.items()])
    return f"Made under several conditions, which move the last digits: {told}."


def outcome_words(comparison: Comparison) -> str:
    """An outcome, with what these seeds could have shown where it is undecided, if anything."""
    if comparison.outcome == "undecided" and comparison.detectable < 1:
        return f"undecided (could have shown {100 * comparison.detectable:.2f})"
    return comparison.outcome


def probability(comparison: Comparison) -> str:
    """The adjusted p; a dash where one seed gives none."""
    if not math.isfinite(comparison.low):
        return NOTHING
    return "< 0.001" if comparison.p < 0.001 else f"{comparison.p:.3f}"


def seeds_text(seeds: Sequence[int]) -> str:
    return f"{counted(len(seeds), 'seed')} ({', '.join(map(str, seeds))})"


def _tally(study: GatheredArms) -> list[str]:
    verbs = {True: ("wins", "win"), False: ("does not win", "do not win"), None: ("is undecided", "are undecided")}
    counts = {wins: sum(v.wins is wins for v in study.verdicts) for wins in verbs}
    return [f"{count} {verbs[wins][count > 1]}" for wins, count in counts.items() if count]


def _three(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"


def _and(parts: Iterable[str]) -> str:
    *most, last = list(parts) or [""]
    return f"{', '.join(most)} and {last}" if most else last
