"""Numbers and verdicts as texts: short, with their unit, and plain about what is unknown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from tombola.evidence import Comparison, Measure, figures, fixed, listed
from tombola.report.arms import ArmResults, GatheredArms
from tombola.studies import in_words, under

NOTHING = "–"
WORDS = {True: "wins", False: "does not win", None: "undecided"}
MARKS = {True: "✓", False: "✗", None: "?"}
SPACE = "\u00a0"
OWN_SEEDS = "Dense is shown over all of its seeds; a difference to it is over the seeds of its row."
MEASURES = {
    "seconds": "time",
    "flops": "FLOPs",
    "step_memory": "memory of a step",
    "peak_memory": "peak memory",
    "energy": "energy",
    "carbon": "CO₂e",
}


def share(value: float) -> str:
    """A density or sparsity in percent, with at most four digits.

    Examples:
        >>> share(0.05), share(1 - 0.0144)
        ('5\\xa0%', '98.56\\xa0%')
    """
    return f"{100 * value:.4g}{SPACE}%"


def percent(value: float | None) -> str:
    """A value that is in percent already; a dash where there is none.

    Examples:
        >>> percent(97.314), percent(None)
        ('97.31\\xa0%', '–')
    """
    return NOTHING if value is None or math.isnan(value) else f"{fixed(value)}{SPACE}%"


def between(low: float | None, high: float | None, sign: str = "") -> str:
    """An interval in percent or points; a dash where there is none.

    Args:
        low: the lower end.
        high: the upper end.
        sign: "+" to write the sign of positive ends too, for differences.

    Examples:
        >>> between(-0.5, 1.25, "+")
        '[−0.50,\\xa0+1.25]'
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return NOTHING
    return f"[{fixed(low, sign)},{SPACE}{fixed(high, sign)}]"


def numbers(low: float | None, high: float | None) -> str:
    """An interval of numbers that are no shares; a dash where there is none.

    Examples:
        >>> numbers(-0.5, 1.25)
        '[−0.5,\\xa01.25]'
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return NOTHING
    return f"[{figures(low)},{SPACE}{figures(high)}]"


def shown(value: float, measure: Measure) -> str:
    """An arm's mean: in percent already, if it is one of shares.

    Examples:
        >>> shown(97.314, Measure("accuracy")), shown(-0.25, Measure("negative-mae", share=False))
        ('97.31\\xa0%', '−0.25')
    """
    return percent(value) if measure.share else NOTHING if math.isnan(value) else figures(value)


def saved(value: float | None) -> str:
    """The share that was saved, in percent; below 0 if more was spent.

    Examples:
        >>> saved(0.125), saved(-2.0), saved(None)
        ('12.5\\xa0%', '−200.0\\xa0%', '–')
    """
    return NOTHING if value is None else f"{100 * value:.1f}{SPACE}%".replace("-", "−")


def points(value: float | None) -> str:
    """A difference that is in percentage points already, with its sign.

    Examples:
        >>> points(-0.123)
        '−0.12'
    """
    return NOTHING if value is None or not math.isfinite(value) else fixed(value, "+")


def number(value: float | None) -> str:
    """A count or a measure with three digits and an SI prefix.

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
    """Seconds as seconds, minutes or hours, whichever reads best.

    Examples:
        >>> duration(3.14159), duration(200), duration(7300)
        ('3.14\\xa0s', '3.3\\xa0min', '2.0\\xa0h')
    """
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 100:
        return f"{seconds:.3g}{SPACE}s"
    return f"{seconds / 60:.1f}{SPACE}min" if seconds < 6000 else f"{seconds / 3600:.1f}{SPACE}h"


def capital(text: str) -> str:
    """A text that begins a sentence.

    Examples:
        >>> capital("accuracy at density 0.1")
        'Accuracy at density 0.1'
    """
    return text[:1].upper() + text[1:]


def counted(count: int, thing: str, things: str = "") -> str:
    """A count with its noun, in the plural where needed.

    Args:
        count: how many.
        thing: the noun.
        things: its plural; the noun with an s if empty.

    Examples:
        >>> counted(1, "seed"), counted(2, "density", "densities")
        ('1 seed', '2 densities')
    """
    return f"{count} {thing if count == 1 else things or f'{thing}s'}"


def verdict_word(study: GatheredArms, arm: ArmResults) -> str:
    """The verdict on a ticket in up to three words; empty for dense, for controls and without a verdict."""
    verdict = None if arm.role != "ticket" else study.verdict(arm)
    return "" if verdict is None else WORDS[verdict.wins]


def estimate(study: GatheredArms) -> str:
    """How energy and carbon were estimated; "" if they were not."""
    if not study.countries:
        return ""
    return (
        "Energy and carbon are estimates by codecarbon: kWh = mean power × seconds, kg CO₂e = kWh × the intensity of "
        f"the grid of {listed(study.countries)}."
    )


def mixed_conditions(study: GatheredArms) -> str:
    """A note that the results were made under several conditions (threads or devices); empty if under one."""
    counts = Counter(
        in_words(conditions) for arm in study.arms for result in arm.results if (conditions := under(result.settings))
    )
    if len(counts) < 2:
        return ""
    parts = listed([f"{counted(count, 'result')} with {words}" for words, count in counts.items()])
    return f"The results were made under several conditions, which can change their last digits: {parts}."


def outcome_words(comparison: Comparison) -> str:
    """An outcome; if undecided, with the smallest difference that these seeds could have shown."""
    if comparison.outcome == "undecided" and math.isfinite(comparison.detectable) and comparison.detectable < 1:
        return f"undecided (could have shown {comparison.measure.amount(comparison.detectable)})"
    return comparison.outcome


def probability(comparison: Comparison) -> str:
    """The adjusted p value; a dash for a single seed, and after several looks, which give none."""
    if comparison.p is None or not math.isfinite(comparison.low):
        return NOTHING
    return "< 0.001" if comparison.p < 0.001 else f"{comparison.p:.3f}"


def seeds_text(seeds: Sequence[int]) -> str:
    """The number of seeds and their list.

    Examples:
        >>> seeds_text((0, 1, 2)), seeds_text(range(10))
        ('3 seeds (0, 1, 2)', '10 seeds (0 to 9)')
    """
    in_a_row = len(seeds) > 3 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    which = f"{seeds[0]} to {seeds[-1]}" if in_a_row else ", ".join(map(str, seeds))
    return f"{counted(len(seeds), 'seed')} ({which})"


def seeds_of_tickets(study: GatheredArms) -> str:
    """How many seeds a ticket has; from the fewest to the most, where tickets differ."""
    counts = {len(arm.results) for arm in study.arms if arm.role == "ticket"} or {len(study.seeds)}
    return f"{min(counts)} to {max(counts)} seeds" if len(counts) > 1 else counted(counts.pop(), "seed")


def _three(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
