"""The colours of the page and its charts, light and dark, after Okabe and Ito's palette for colour-blind readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif'
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left")


@dataclass(frozen=True)
class Theme:
    """The colours of one look.

    Args:
        page: the page's background.
        card: the background of panels and tables.
        ink: text.
        muted: secondary text and the labels of axes.
        line: borders and grids.
        accent: links, bars and what is marked.
        good: a win, a passed check.
        bad: a loss, a failed check, a layer with nothing left.
        unsure: what is undecided.
        dense: the dense network in charts.
        series: the ticket first, then its controls.
        ramp: densities, from dense to sparse: both ends and the middle.
    """

    page: str
    card: str
    ink: str
    muted: str
    line: str
    accent: str
    good: str
    bad: str
    unsure: str
    dense: str
    series: tuple[str, ...]
    ramp: tuple[str, str, str]


LIGHT = Theme(
    page="#fbfbfa",
    card="#ffffff",
    ink="#1c2024",
    muted="#5c656e",
    line="#e1e4e7",
    accent="#0072b2",
    good="#00694d",
    bad="#b03a00",
    unsure="#6b5900",
    dense="#4a525a",
    series=("#0072b2", "#d55e00", "#009e73", "#b8588f", "#b87d00", "#3a9bd6", "#7d7400", "#7a7f85"),
    ramp=("#9cc9e3", "#1f77b4", "#0b2545"),
)
DARK = Theme(
    page="#14171a",
    card="#1c2024",
    ink="#e8eaed",
    muted="#a3acb5",
    line="#343a41",
    accent="#6cbcf0",
    good="#4fd1a5",
    bad="#ff9361",
    unsure="#e6d15a",
    dense="#b7bfc7",
    series=("#6cbcf0", "#f0803c", "#2fc495", "#e39ac6", "#f0b73a", "#9aa7ff", "#f0e442", "#a8adb3"),
    ramp=("#2f5f86", "#56b4e9", "#e4f4ff"),
)


def vega_config(theme: Theme, steps: int) -> dict[str, Any]:
    """Vega-Lite's settings for a theme.

    Args:
        theme: the colours.
        steps: the number of densities whose colours must differ.
    """
    text = {"labelColor": theme.muted, "titleColor": theme.muted, "labelFontSize": 11, "titleFontSize": 11}
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            **text,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "domainColor": theme.line,
            "gridColor": theme.line,
            "gridOpacity": 0.7,
            "tickColor": theme.line,
        },
        "legend": {
            **text,
            "titleFontWeight": "normal",
            "symbolSize": 70,
            "labelLimit": 240,
            "orient": "bottom",
            "columns": 5,
        },
        "title": {"color": theme.ink, "fontSize": 13, "anchor": "start", "subtitleColor": theme.muted, "offset": 10},
        "text": {"color": theme.ink, "fontSize": 11},
        "bar": {"color": theme.accent},
        "style": {
            "dense": {"color": theme.dense, "strokeWidth": 1.5},
            "dense-point": {"color": theme.dense},
            "dense-band": {"color": theme.dense, "opacity": 0.16},
            "ranked": {"color": theme.accent},
            "nothing-left": {"color": theme.bad, "strokeWidth": 2},
        },
        "range": {"category": list(theme.series), "ordinal": ramp(theme.ramp, steps)},
    }


def shape(index: int) -> str:
    """The mark of a series; when the colours repeat, each gets a new mark, so that no two series look alike."""
    return SHAPES[(index + index // len(LIGHT.series)) % len(SHAPES)]


def ramp(stops: Sequence[str], steps: int) -> list[str]:
    """Colours at even steps between given ones.

    Args:
        stops: colours as #rrggbb.
        steps: the number of colours wanted.

    Examples:
        >>> ramp(("#000000", "#808080", "#ffffff"), 3)
        ['#000000', '#808080', '#ffffff']
    """
    if steps < 2:
        return [stops[len(stops) // 2]] * max(steps, 1)
    channels = [[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops]
    colours = []
    for step in range(steps):
        position = step * (len(stops) - 1) / (steps - 1)
        index = min(int(position), len(stops) - 2)
        mixed = zip(channels[index], channels[index + 1], strict=True)
        colours.append("#" + "".join(f"{round(a + (b - a) * (position - index)):02x}" for a, b in mixed))
    return colours
