"""The page's tables as texts; they hold every figure that a chart shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tombola.evidence import NET, TRAINING, interval_text
from tombola.report import chart_rows
from tombola.report.arms import ArmResults, GatheredArms
from tombola.report.prose import (
    MEASURES,
    NOTHING,
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


@dataclass(frozen=True)
class Grid:
    """A table of texts.

    Args:
        head: the headings of the columns.
        rows: the cells of each row.
        text: the number of columns from the left that hold words; the others hold figures.
        marked: the indices of the rows to set in bold.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: int = 1
    marked: frozenset[int] = frozenset()


def results_grid(study: GatheredArms) -> Grid:
    """One row for each arm and density; tickets are marked."""
    rows = []
    for arm in study.arms:
        difference = study.difference(arm)
        rows.append(
            (
                arm.name + (" (collapsed)" if arm.collapsed else ""),
                share(arm.density),
                share(1 - arm.density),
                share(arm.weight_density),
                NOTHING if arm.network_density is None else share(arm.network_density),
                NOTHING if arm.effective_density is None else share(arm.effective_density),
                str(len(arm.results)),
                shown(arm.accuracy[0], arm.measure),
                between(*arm.accuracy[1:]) if arm.measure.share else numbers(*arm.accuracy[1:]),
                NOTHING if difference is None else difference.measure.signed(difference.mean),
                NOTHING if difference is None else interval_text(difference),
                number(arm.cost("search", "dense_epochs")),
                duration(arm.cost("search", "seconds")),
                verdict_word(study, arm) or NOTHING,
            )
        )
    head = (
        "arm",
        "density",
        "sparsity",
        "weights kept",
        "of the network",
        "on a path",
        "seeds",
        study.measure.name,
        "95 % interval",
        f"to dense, {study.measure.unit}",
        "interval",
        "search, dense epochs",
        "search, time",
        "verdict",
    )
    return Grid(head, tuple(rows), marked=frozenset(i for i, arm in enumerate(study.arms) if arm.role == "ticket"))


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
    values = {(row["epoch"], row["series"]): f"{row['value']:.2f}" for row in rows}
    epochs = sorted({row["epoch"] for row in rows})
    body = ((f"{epoch:g}", *(values.get((epoch, name), NOTHING) for name in series)) for epoch in epochs)
    return Grid(("epoch", *series), tuple(body), text=0)


def costs_grid(study: GatheredArms) -> Grid:
    """The costs of search and training of each ticket and of dense, means over seeds."""
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
        for arm in study.arms
        if arm.role in ("ticket", "dense")
    )
    return Grid(head, tuple(body))


def savings_grid(study: GatheredArms) -> Grid:
    """What each ticket saves of dense training, without and with the cost of its search."""
    head = (
        "ticket",
        "density",
        "seeds",
        *(MEASURES[key] for key in TRAINING),
        *(f"{MEASURES[key]}, with search" for key in NET),
    )
    rows = (
        (
            savings.subject,
            share(savings.density),
            str(len(savings.seeds)),
            *(saved(savings.training[key]) for key in TRAINING),
            *(saved(savings.net[key]) for key in NET),
        )
        for savings in study.saved
    )
    return Grid(head, tuple(rows))


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
