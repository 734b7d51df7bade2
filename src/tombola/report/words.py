"""The words of a report, and the methods and controls that occur in it, in a sentence each."""

from __future__ import annotations

from tombola.evidence import control_kind
from tombola.registry import CONTROLS, METHODS, SCORES
from tombola.report.arms import GatheredArms
from tombola.report.prose import capital


def words(study: GatheredArms) -> dict[str, str]:
    """What the page's words mean, by word; those of what is not on the page are left out.

    Args:
        study: the content of the report.
    """
    share, measure = study.measure.share, study.measure
    has_paths = any(arm.effective_density is not None for arm in study.arms)
    margin = measure.limit(max((own.margin for own in study.verdicts), default=0.0))
    common = {
        "ticket": "a part of the network's weights with their starting values, which trains alone",
        "dense": "the whole network, from which nothing is removed",
        "control": "a ticket of the same size that should not win, with something changed",
        "density": "the share of the units (weights, channels, …) that is kept; sparsity is the share that is removed",
        "on a path": "the share of the weights that are kept and connect input and output" if has_paths else "",
        "seed": "the number from which all randomness of a repetition follows: starting weights and order of the data",
        "points": f"differences of {measure.name} in percentage points: from 90 to 91 % is one point" if share else "",
        "margin": f"a smaller difference ({margin}) counts as none" if study.verdicts else "",
        "interval": "where the true mean lies, as far as these seeds tell, with the chance that stands beside it",
        "dense epoch": "the work of one pass of the whole network over the training split; costs are counted in it",
        "group": "methods that share a letter were not told apart" if study.rankings else "",
        "mean rank": "the place of a method within a seed (1 is best), mean over seeds" if study.rankings else "",
    }
    return {
        **{word: f"{capital(said)}." for word, said in common.items() if said},
        **{f"{name} (method)": f"{capital(said)}." for name in study.methods if (said := _of_method(name))},
        **{f"{name} (control)": f"{capital(said)}." for name in study.controls if (said := _of_control(name))},
    }


def _of_method(label: str) -> str:
    """What a method does, by its label: a preset, or a score, with what differs from it in parentheses."""
    name, _, settings = label.partition(" #")[0].partition("(")
    if name in METHODS.entries:
        said = METHODS.entries[name].summary
    elif name in SCORES.entries:
        said = f"keep what is worth most: {SCORES.entries[name].summary}"
    else:
        return ""
    return f"{said}; here with {settings.removesuffix(')')}" if settings else said


def _of_control(name: str) -> str:
    """What a control changes, and what it means if it does as well as the ticket."""
    kind = control_kind(name)
    if kind not in CONTROLS:
        return ""
    entry = CONTROLS.entry(kind)
    means = f". If it does as well, {entry.means}" if entry.means else ""
    return f"it changes {entry.summary}{means}" if entry.summary else ""
