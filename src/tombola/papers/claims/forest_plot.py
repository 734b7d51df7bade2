"""A claim's forest plot: our interval, the paper's value as a diamond, the margin shaded, a tick at what is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from tombola.papers.claims.claim_outcome import ClaimReport, Finding, Judged
from tombola.report.charts import draw, specification
from tombola.report.theme import LIGHT, vega_config

COLOURS: dict[Finding, str] = {
    "holds": LIGHT.good,
    "contradicted": LIGHT.bad,
    "undecided": LIGHT.unsure,
    "tie": LIGHT.unsure,
}
WIDTH, ROW = 430, 30


def forest_plot(report: ClaimReport) -> dict[str, Any]:
    """The plot as a Vega-Lite specification; rows of one unit share an axis."""
    units = dict.fromkeys(row.unit.name for row in report.rows)
    parts = [_of_unit([row for row in report.rows if row.unit.name == unit], unit) for unit in units]
    look = {"config": vega_config(LIGHT, 1) | {"background": LIGHT.card}, "padding": 10}
    return specification(alt.VConcatChart(vconcat=parts)) | look


def _of_unit(judged: Sequence[Judged], unit: str) -> alt.LayerChart:
    rows = [_row(own) for own in judged]
    order = [row["expected"] for row in rows]
    ends = [value for row in rows for value in (row["low"], row["high"], row["paper"]) if value is not None]
    least, most = min([*ends, 0.0]), max([*ends, 0.0])
    room = 0.06 * (most - least) or 1.0
    scale = alt.Scale(domain=[least - room, most + room], nice=True, clamp=True)
    y = alt.Y("expected:N", sort=order, title=None, axis=alt.Axis(labelLimit=330, grid=False))
    x = {
        name: alt.X(f"{name}:Q", title=f"left − right, {unit}", scale=scale)
        for name in ("low", "mean", "paper", "tick")
    }
    colour = alt.Color("finding:N", title=None, scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())))
    with_paper = [row for row in rows if row["paper"] is not None]
    layers = [
        draw(rows, "bar", opacity=0.12, height=ROW - 8, color=LIGHT.ink).encode(
            x=alt.X("margin_from:Q", scale=scale, title=f"left − right, {unit}"), x2=alt.X2("margin_to:Q"), y=y
        ),
        draw([{}], "rule", style="dense").encode(x=alt.datum(0)),
        draw(rows, "rule", strokeWidth=2).encode(x=x["low"], x2=alt.X2("high:Q"), y=y, color=colour),
        draw(rows, "point", filled=True, size=70, opacity=1).encode(x=x["mean"], y=y, color=colour),
        draw([row for row in rows if row["tick"] is not None], "tick", thickness=2, height=14).encode(x=x["tick"], y=y),
        draw(with_paper, "point", shape="diamond", filled=False, size=110, strokeWidth=2, opacity=1).encode(
            x=x["paper"], y=y
        ),
    ]
    return alt.LayerChart(layer=[layer for layer in layers if layer.data.values], width=WIDTH, height=ROW * len(rows))


def _row(judged: Judged) -> dict[str, Any]:
    scale, difference = judged.unit.scale, judged.difference
    ends = (0.0 if judged.expected.relation == ">" else -judged.margin, judged.margin)

    def shown(value: float) -> float | None:
        return scale * value if math.isfinite(value) else None

    return {
        "expected": str(judged.expected),
        "finding": judged.finding,
        "mean": scale * difference.mean,
        "low": shown(difference.low) if math.isfinite(difference.low) else scale * difference.mean,
        "high": shown(difference.high) if math.isfinite(difference.high) else scale * difference.mean,
        "paper": judged.expected.paper,
        "tick": shown(judged.detectable),
        "margin_from": scale * ends[0],
        "margin_to": scale * ends[1],
    }
