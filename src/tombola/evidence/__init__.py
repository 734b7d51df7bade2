"""Evidence: controls, paired statistics, the verdict, what of a mask is alive, and what a ticket saves."""

from tombola.evidence.controls import CONTROLS, Against, Arm, Inverted, budget_gap, control
from tombola.evidence.paths import effective
from tombola.evidence.savings import NET, TRAINING, Savings, Spent, known, savings
from tombola.evidence.statistics import MARGIN, Comparison, compare, holm, interval
from tombola.evidence.verdict import MANDATORY, Verdict, judge

__all__ = [
    "CONTROLS",
    "MANDATORY",
    "MARGIN",
    "NET",
    "TRAINING",
    "Against",
    "Arm",
    "Comparison",
    "Inverted",
    "Savings",
    "Spent",
    "Verdict",
    "budget_gap",
    "compare",
    "control",
    "effective",
    "holm",
    "interval",
    "judge",
    "known",
    "savings",
]
