"""Evidence that a ticket wins: controls, paired statistics, the verdict; also dead paths and savings."""

from tombola.evidence.arms import Against, Arm, budget_gap, control_kind
from tombola.evidence.controls import Inverted, control, control_identity, control_obstacle
from tombola.evidence.dead_paths import effective
from tombola.evidence.deciding_bounds import deciding_interval, hardest_control, level_words
from tombola.evidence.forecast import Forecast
from tombola.evidence.looks import EachSeed, Looks, OneLook
from tombola.evidence.measure import ACCURACY, MARGIN, Measure, figures, fixed, minus, settled
from tombola.evidence.method_ranking import SIGNS, Pair, Place, Ranking, over_all, ranking
from tombola.evidence.reasons import listed
from tombola.evidence.sanity_outcomes import CHECKS, Checked, Sanity
from tombola.evidence.spending import NET, TRAINING, Savings, Spent, known_cost, savings
from tombola.evidence.statistics import ONE_LOOK, Comparison, holm, interval, paired_comparison, proportion
from tombola.evidence.task_measure import Better, measure_of
from tombola.evidence.verdict import MANDATORY, Verdict, ended, interval_text, judge

__all__ = [
    "ACCURACY",
    "CHECKS",
    "MANDATORY",
    "MARGIN",
    "NET",
    "ONE_LOOK",
    "SIGNS",
    "TRAINING",
    "Against",
    "Arm",
    "Better",
    "Checked",
    "Comparison",
    "EachSeed",
    "Forecast",
    "Inverted",
    "Looks",
    "Measure",
    "OneLook",
    "Pair",
    "Place",
    "Ranking",
    "Sanity",
    "Savings",
    "Spent",
    "Verdict",
    "budget_gap",
    "control",
    "control_identity",
    "control_kind",
    "control_obstacle",
    "deciding_interval",
    "effective",
    "ended",
    "figures",
    "fixed",
    "hardest_control",
    "holm",
    "interval",
    "interval_text",
    "judge",
    "known_cost",
    "level_words",
    "listed",
    "measure_of",
    "minus",
    "over_all",
    "paired_comparison",
    "proportion",
    "ranking",
    "savings",
    "settled",
]
