"""Evidence: controls, paired statistics, the verdict, what of a mask is alive, robustness, savings."""

from tombola.evidence.arm import Against, Arm, budget_gap, control_kind
from tombola.evidence.attacks import fgsm, pgd
from tombola.evidence.controls import Inverted, control, control_identity, obstacle
from tombola.evidence.corruptions import SUITES, Suite, corrupt
from tombola.evidence.detection import auroc, calibration_error, energy, fpr95, msp
from tombola.evidence.paths import effective
from tombola.evidence.robustness import Robustness, compared
from tombola.evidence.sanity import CHECKS, Checked, Sanity
from tombola.evidence.spending import NET, TRAINING, Savings, Spent, known, savings
from tombola.evidence.statistics import MARGIN, Comparison, compare, holm, interval, proportion
from tombola.evidence.verdict import MANDATORY, Verdict, judge

__all__ = [
    "CHECKS",
    "MANDATORY",
    "MARGIN",
    "NET",
    "SUITES",
    "TRAINING",
    "Against",
    "Arm",
    "Checked",
    "Comparison",
    "Inverted",
    "Robustness",
    "Sanity",
    "Savings",
    "Spent",
    "Suite",
    "Verdict",
    "auroc",
    "budget_gap",
    "calibration_error",
    "compare",
    "compared",
    "control",
    "control_identity",
    "control_kind",
    "corrupt",
    "effective",
    "energy",
    "fgsm",
    "fpr95",
    "holm",
    "interval",
    "judge",
    "known",
    "msp",
    "obstacle",
    "pgd",
    "proportion",
    "savings",
]
