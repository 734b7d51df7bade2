"""The terminal's tables of results and savings; each fits eighty columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from tombola.evidence import Verdict, minus
from tombola.report.arms import ArmResults, GatheredArms
from tombola.report.prose import NOTHING, duration, number, share, verdict_word
from tombola.studies.result import Result

STYLES = {"wins": "bold green", "does not win": "red", "undecided": "yellow"}
ACCURACY = "accuracy, %"
FIGURES = ("density", "sparsity", ACCURACY, "to\ndense", "search,\nepochs", "search,\ntime")

SAVED = ("density", "time", "FLOPs", "step\nmemory", "energy", "net\ntime", "net\nFLOPs", "net\nenergy")


def results_table_for(results: Sequence[Result], verdicts: Sequence[Verdict]) -> Table:
    """Accuracy with its 95 % interval, difference to dense, cost of the search and verdict of each arm.

    Controls stand below their ticket. Accuracies are in percent, differences in points, costs in dense epochs and time.

    Args:
        results: of all runs.
        verdicts: one for each method and density that was checked.
    """
    study = GatheredArms.of(results, verdicts)
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.caption = "± is half of the 95 % interval of the mean, which takes three seeds."
    table.caption_justify = "left"
    table.add_column("arm", overflow="fold", min_width=12)
    for heading in FIGURES:
        own = f"{study.measure.name}{', %' * study.measure.share}" if heading == ACCURACY else heading
        table.add_column(own, justify="right", no_wrap=True)
    table.add_column("verdict")
    for index, arm in enumerate(study.arms):
        following = study.arms[index + 1 :][:1]  # Empty after the last arm.
        difference = study.difference(arm)
        word = verdict_word(study, arm)
        table.add_row(
            Text(_name(arm), style="bold" if arm.role == "ticket" else ""),
            share(arm.density),
            share(1 - arm.density),
            _accuracy(arm),
            NOTHING if difference is None else difference.measure.signed(difference.mean),
            number(arm.cost("search", "dense_epochs")),
            duration(arm.cost("search", "seconds")),
            Text(word, style=STYLES.get(word, "")),
            end_section=any((a.method, a.density) != (arm.method, arm.density) for a in following),
        )
    return table


def savings_table(study: GatheredArms) -> Table:
    """What each ticket saves of dense training in percent, without and with (net) its search.

    Carbon is not shown: it is proportional to energy, so the same share is saved.
    """
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0), title="saved of dense, %")
    table.add_column("ticket", overflow="fold", min_width=12)
    for heading in SAVED:
        table.add_column(heading, justify="right", no_wrap=True)
    for savings in study.saved:
        shares = [savings.training[key] for key in ("seconds", "flops", "step_memory", "energy")]
        shares += [savings.net[key] for key in ("seconds", "flops", "energy")]
        table.add_row(
            savings.subject,
            share(savings.density),
            *(NOTHING if s is None else minus(f"{100 * s:.1f}") for s in shares),
        )
    return table


def _name(arm: ArmResults) -> str:
    name = f"  {arm.control}" if arm.control else arm.name
    return f"{name} (collapsed)" if arm.collapsed else name


def _accuracy(arm: ArmResults) -> str:
    mean, low, high = arm.accuracy
    if math.isnan(mean):
        return NOTHING
    digits = ".2f" if arm.measure.share else ".4g"
    if low is None or high is None:
        return minus(f"{mean:{digits}}")
    half = max(high - mean, mean - low)  # of the side at which it does not end at what is possible
    return f"{minus(f'{mean:{digits}}')} ± {f'{half:{digits}}' if len(arm.results) > 2 else NOTHING}"
