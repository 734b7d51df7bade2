"""The terminal's tables of results and savings."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

from tombola.evidence import Verdict, figures, fixed, minus
from tombola.report.arms import ArmResults, GatheredArms
from tombola.report.prose import NOTHING, OWN_SEEDS, duration, number, share, verdict_word
from tombola.studies.result import Result
from tombola.terminal_table import Column, TerminalTable

STYLES = {"wins": "bold green", "does not win": "red", "undecided": "yellow"}
SAVED = ("time", "FLOPs", "FLOPs\nif cut", "step\nmemory", "energy", "net\ntime", "net\nFLOPs", "net\nenergy")


def results_table_for(results: Sequence[Result], verdicts: Sequence[Verdict]) -> TerminalTable:
    """Verdict, accuracy with its 95 % interval, difference to dense and cost of the search of each arm.

    Controls stand below their ticket. Accuracies are in percent, differences in points, costs in dense epochs and time.

    Args:
        results: of all runs.
        verdicts: one for each method and density that was checked.
    """
    study = GatheredArms.of(results, verdicts)
    verdict = (Column("verdict", left=True),) if study.verdicts else ()
    columns = (
        Column("arm", left=True, least=12),
        *verdict,
        Column("density"),
        Column(f"{study.measure.name}{', %' * study.measure.share}"),
        Column("to\ndense", drop=1),
        *((Column("seeds", drop=2),) if study.seeds_differ else ()),
        Column("search,\nepochs", drop=3),
        Column("search,\ntime", drop=4),
        Column("sparsity", drop=5),
    )
    caption = "± is half of the 95 % interval of the mean, which takes three seeds."
    table = TerminalTable(columns, caption=f"{caption} {OWN_SEEDS}" if study.seeds_differ else caption)
    for index, arm in enumerate(study.arms):
        following = study.arms[index + 1 :][:1]  # Empty after the last arm.
        difference = study.difference(arm)
        word = verdict_word(study, arm)
        table.add(
            Text(_name(arm), style="bold" if arm.role == "ticket" else ""),
            *([Text(word, style=STYLES.get(word, ""))] if verdict else []),
            share(arm.density),
            _accuracy(arm),
            NOTHING if difference is None else difference.measure.signed(difference.mean),
            *([str(len(arm.results))] if study.seeds_differ else []),
            number(arm.cost("search", "dense_epochs")),
            duration(arm.cost("search", "seconds")),
            share(1 - arm.density),
            end=any((a.method, a.density) != (arm.method, arm.density) for a in following),
        )
    return table


def saves(study: GatheredArms) -> bool:
    """Whether some ticket's training saves more than noise, or could: work or memory, or energy that was metered."""
    shares = [own.training[key] for own in study.saved for key in ("flops", "step_memory")]
    shares += [own.could for own in study.saved]
    return bool(study.countries) or any(abs(own or 0.0) >= 0.0005 for own in shares)


def savings_table(study: GatheredArms) -> TerminalTable:
    """What each ticket saves of dense training in percent, without and with (net) its search.

    "If cut" is what a step would save as the smaller network, without the units that the ticket leaves wholly dead.
    Carbon is not shown: it is proportional to energy, so the same share is saved. Nor is what was not measured.
    """
    rows = []
    for savings in study.saved:
        shares = [savings.training[key] for key in ("seconds", "flops")]
        shares += [savings.could, *(savings.training[key] for key in ("step_memory", "energy"))]
        shares += [savings.net[key] for key in ("seconds", "flops", "energy")]
        cells = [NOTHING if own is None else minus(f"{100 * own:.1f}") for own in shares]
        rows.append((savings.subject, share(savings.density), cells))
    known = [place for place in range(len(SAVED)) if any(cells[place] != NOTHING for *_, cells in rows)]
    columns = [Column("ticket", left=True, least=12), Column("density")]
    columns += [Column(SAVED[place], drop=place) for place in known]
    table = TerminalTable(columns, title="saved of dense, %")
    for subject, density, cells in rows:
        table.add(subject, density, *(cells[place] for place in known))
    return table


def _name(arm: ArmResults) -> str:
    name = f"  {arm.control}" if arm.control else arm.name
    return f"{name} (collapsed)" if arm.collapsed else name


def _accuracy(arm: ArmResults) -> str:
    mean, low, high = arm.accuracy
    if math.isnan(mean):
        return NOTHING
    text = fixed if arm.measure.share else figures
    if low is None or high is None:
        return text(mean)
    half = max(high - mean, mean - low)  # of the side at which it does not end at what is possible
    return f"{text(mean)} ± {text(half) if len(arm.results) > 2 else NOTHING}"
