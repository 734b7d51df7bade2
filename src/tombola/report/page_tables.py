"""The page's tables as texts; they hold every figure that a chart shows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tombola.evidence import NET, TRAINING, fixed, interval_text
from tombola.report import chart_rows
from tombola.report.arms import ArmResults, GatheredArms
from tombola.report.prose import (
    MEASURES,
    NOTHING,
    SPACE,
    between,
    duration,
    number,
    numbers,
    saved,
    share,
    shown,
    verdict_word,
)
from tombola.studies import Result

SILENT = frozenset((NOTHING, "", "0", "0.00", f"0.0{SPACE}%", f"−0.0{SPACE}%"))
"""Cells that say nothing, where a whole column holds no others."""


@dataclass(frozen=True)
class Grid:
    """A table of texts.

    Args:
        head: the headings of the columns.
        rows: the cells of each row.
        text: the number of columns from the left that hold words; the others hold figures.
        marked: the indices of the rows to set in bold.
        keys: of each row, the method and the text of the density by which it can be filtered; none if empty.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: int = 1
    marked: frozenset[int] = frozenset()
    keys: tuple[tuple[str, str], ...] = ()

    @property
    def told(self) -> Grid:
        """The same without the columns that say nothing: those whose figures are all zeros or dashes.

        Examples:
            >>> Grid(("arm", "Wh", "seeds"), (("imp", "–", "3"), ("snip", "0", "5"))).told.head
            ('arm', 'seeds')
        """
        kept = [
            place
            for place in range(len(self.head))
            if place < max(1, self.text) or any(row[place] not in SILENT for row in self.rows)
        ]
        rows = tuple(tuple(row[place] for place in kept) for row in self.rows)
        return replace(self, head=tuple(self.head[place] for place in kept), rows=rows)


def results_grid(study: GatheredArms) -> Grid:
    """One row for each arm and density; tickets are marked."""
    rows = []
    for arm in study.arms:
        difference = study.difference(arm)
        counted = share(arm.weight_density)
        rows.append(
            (
                arm.name + (" (collapsed)" if arm.collapsed else ""),
                verdict_word(study, arm),
                share(arm.density),
                share(1 - arm.density),
                "" if counted == share(arm.density) else counted,
                "" if arm.network_density is None else share(arm.network_density),
                "" if arm.effective_density is None else share(arm.effective_density),
                shown(arm.accuracy[0], arm.measure),
                between(*arm.accuracy[1:]) if arm.measure.share else numbers(*arm.accuracy[1:]),
                NOTHING if difference is None else difference.measure.signed(difference.mean),
                NOTHING if difference is None else interval_text(difference),
                str(len(arm.results)),
                number(arm.cost("search", "dense_epochs")),
                duration(arm.cost("search", "seconds")),
            )
        )
    head = (
        "arm",
        "verdict",
        "density",
        "sparsity",
        "weights kept",
        "of the network",
        "on a path",
        study.measure.name,
        "95 % interval",
        f"to dense, {study.measure.unit}",
        "interval",
        "seeds",
        "search, dense epochs",
        "search, time",
    )
    marked = frozenset(i for i, arm in enumerate(study.arms) if arm.role == "ticket")
    keys = tuple((arm.method, share(arm.density) if arm.method else "") for arm in study.arms)
    return Grid(head, tuple(rows), text=2 if any(row[1] for row in rows) else 1, marked=marked, keys=keys)


def layers_grid(study: GatheredArms, method: str) -> Grid:
    """The kept share of each layer: one row for each layer, one column for each density."""
    rows = chart_rows.layer_rows(study, method)
    densities = list(dict.fromkeys(row["density"] for row in rows))
    values = {(row["layer"], row["density"]): f"{row['value']:.4g}\u00a0%" for row in rows}
    sizes = {row["layer"]: row["size"] for row in rows}
    head = ("layer", "weights", *(f"kept at density {density}" for density in densities))
    body = (
        (layer, f"{size:,}", *(values.get((layer, density), NOTHING) for density in densities))
        for layer, size in sizes.items()
    )
    return Grid(head, tuple(body))


def curves_grid(study: GatheredArms, ticket: ArmResults) -> Grid:
    """The validation metric, a share in percent: one row for each epoch, one column for each arm."""
    rows = chart_rows.curve_rows(study, ticket)
    series = list(dict.fromkeys(row["series"] for row in rows))
    values = {(row["epoch"], row["series"]): fixed(row["value"]) for row in rows}
    epochs = sorted({row["epoch"] for row in rows})
    body = ((f"{epoch:g}", *(values.get((epoch, name), NOTHING) for name in series)) for epoch in epochs)
    return Grid(("epoch", *series), tuple(body), text=0)


def costs_grid(study: GatheredArms) -> Grid:
    """The costs of search and training of each ticket and of dense, means over seeds."""
    arms = [arm for arm in study.arms if arm.role in ("ticket", "dense")]
    head = (
        "arm",
        "density",
        "search, dense epochs",
        "search, seconds",
        "samples forward",
        "samples backward",
        "FLOPs",
        "peak memory, bytes",
        "training, dense epochs",
        "training, seconds",
        "memory of a step, bytes",
        *(f"{stage}, {unit}" for stage in ("search", "training") for unit in ("Wh", "g CO₂e")),
    )
    body = (
        (
            arm.name,
            share(arm.density),
            number(arm.cost("search", "dense_epochs")),
            _seconds(arm.cost("search", "seconds")),
            *(
                number(arm.cost("search", key))
                for key in ("samples_forward", "samples_backward", "flops", "peak_memory")
            ),
            number(arm.cost("training", "dense_epochs")),
            _seconds(arm.cost("training", "seconds")),
            number(arm.cost("training", "step_memory")),
            *(_thousandths(arm.cost(of, key)) for of in ("search", "training") for key in ("energy", "carbon")),
        )
        for arm in arms
    )
    keys = tuple((arm.method, share(arm.density) if arm.method else "") for arm in arms)
    return Grid(head, tuple(body), keys=keys)


def savings_grid(study: GatheredArms) -> Grid:
    """What each ticket saves of dense training, without and with the cost of its search."""
    head = (
        "ticket",
        "density",
        "seeds",
        *(MEASURES[key] for key in TRAINING),
        "FLOPs, if cut",
        *(f"{MEASURES[key]}, with search" for key in NET),
    )
    rows = (
        (
            savings.subject,
            share(savings.density),
            str(len(savings.seeds)),
            *(saved(savings.training[key]) for key in TRAINING),
            saved(savings.could),
            *(saved(savings.net[key]) for key in NET),
        )
        for savings in study.saved
    )
    return Grid(head, tuple(rows), keys=tuple((own.subject, share(own.density)) for own in study.saved))


def runs_grid(arm: ArmResults) -> Grid:
    """One row for each seed: its outcome and the digests that identify it."""
    head = ("seed", arm.measure.name, "loss", "validation", "epochs", "trained", "nothing left of", "digest", "source")
    body = (
        (
            str(r.seed),
            arm.measure.text(r.metric),
            f"{r.loss:.4g}",
            arm.measure.text(r.validation) if math.isfinite(r.validation) else NOTHING,
            str(r.epochs),
            _company(r),
            ", ".join(r.collapsed) or NOTHING,
            r.digest,
            r.source,
        )
        for r in arm.results
    )
    return Grid(head, tuple(body), text=0)


def _company(result: Result) -> str:
    """With how many other networks this one trained at once, or why it trained alone."""
    if result.together > 1:
        return f"with {result.together - 1} others"
    return f"alone: {result.alone}" if result.alone else "alone"


def _thousandths(value: float | None) -> str:
    return number(None if value is None else 1000 * value)


def _seconds(value: float | None) -> str:
    return NOTHING if value is None or not math.isfinite(value) else f"{value:,.{0 if value >= 100 else 2}f}"
