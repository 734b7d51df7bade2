"""Evidence: controls, paired statistics, the verdict, what of a mask is alive, and how a network bears attacks."""

from tombola.evidence.attacks import fgsm, pgd
from tombola.evidence.controls import CONTROLS, Against, Arm, Inverted, budget_gap, control
from tombola.evidence.detection import auroc, calibration_error, energy, fpr95, msp
from tombola.evidence.paths import effective
from tombola.evidence.robustness import Robustness, compared
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
    "Robustness",
    "Verdict",
    "auroc",
    "budget_gap",
    "calibration_error",
    "compare",
    "compared",
    "control",
    "effective",
    "energy",
    "fgsm",
    "fpr95",
    "holm",
    "interval",
    "judge",
    "msp",
    "pgd",
]
