"""Robustness: accuracy on attacked and corrupted images, detection of foreign images, and calibration."""

from tombola.robust.attacks import fgsm, pgd
from tombola.robust.corruptions import SUITES, Suite, corrupt
from tombola.robust.detection import auroc, calibration_error, energy, fpr95, msp
from tombola.robust.robustness import Robustness, compare_robustness

__all__ = [
    "SUITES",
    "Robustness",
    "Suite",
    "auroc",
    "calibration_error",
    "compare_robustness",
    "corrupt",
    "energy",
    "fgsm",
    "fpr95",
    "msp",
    "pgd",
]
