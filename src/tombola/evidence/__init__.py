"""Evidence: controls, paired statistics, the verdict, and what of a mask is alive."""

from tombola.evidence.controls import CONTROLS, Against, Arm, Inverted, budget_gap, control
from tombola.evidence.paths import effective
from tombola.evidence.statistics import MARGIN, Comparison, compare, holm, interval
from tombola.evidence.verdict import MANDATORY, Verdict, judge

__all__ = [
    "CONTROLS",
    "MANDATORY",
    "MARGIN",
    "Against",
    "Arm",
    "Comparison",
    "Inverted",
    "Verdict",
    "budget_gap",
    "compare",
    "control",
    "effective",
    "holm",
    "interval",
    "judge",
]
