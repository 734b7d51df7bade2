"""Controls, paired statistics and the verdict."""

from tombola.evidence.statistics import MARGIN, Comparison, compare, interval
from tombola.evidence.verdict import MANDATORY, Verdict, judge

__all__ = ["MANDATORY", "MARGIN", "Comparison", "Verdict", "compare", "interval", "judge"]
