"""The HTML page: everything in one file, which asks nothing of the network."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tombola.evidence import Sanity, Verdict
from tombola.files import write_atomically
from tombola.report import chart_rows, page_tables, prose, robustness_tables, sanity_tables
from tombola.report.arms import GatheredArms
from tombola.report.panels import Figure, figures, pictures
from tombola.report.shared_settings import flat, settings_of_arms, shared_settings_of
from tombola.report.theme import DARK, FONT, LIGHT, ramp, vega_config
from tombola.studies.result import Result

FIT = {"type": "fit-x", "contains": "padding"}
EXPOSE = "window.vegaEmbed = vegaEmbed;"


def write_report(
    results: Sequence[Result],
    verdicts: Sequence[Verdict],
    folder: Path,
    *,
    title: str,
    command: str = "",
    task: Mapping[str, Any] = {},
    checks: Sequence[Sanity] = (),
) -> Path:
    """Write report.html and its charts as PNG files into a folder; returns the page's path.

    command: what makes the whole report again; task: what was learned, as names and values to show; checks: the sanity
    checks that were made.
    """
    study = GatheredArms.of(results, verdicts, checks)
    drawn = figures(study)
    page = Path(folder) / "report.html"
    write_atomically(page, render(study, drawn, title=title, command=command, task=task))
    for name, picture in pictures(study, drawn).items():
        write_atomically(page.with_name(name), picture)
    return page


def render(
    study: GatheredArms, drawn: Mapping[str, Figure], *, title: str, command: str = "", task: Mapping[str, Any] = {}
) -> str:
    """The page's HTML."""
    results = [result for arm in study.arms for result in arm.results]
    charts = {p.key: p.chart for figure in drawn.values() for p in figure.panels}
    return (
        environment()
        .get_template("template.html.j2")
        .render(
            title=title,
            command=command,
            task=flat(task),
            study=study,
            prose=prose,
            page_tables=page_tables,
            chart_rows=chart_rows,
            robustness_tables=robustness_tables,
            sanity_tables=sanity_tables,
            figures=drawn,
            common=shared_settings_of(results),
            own=settings_of_arms,
            **dressed(charts, len(study.densities)),
        )
    )


def environment(*folders: Path) -> Environment:
    """Where the templates are read from: these folders, then this one."""
    return Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def dressed(charts: Mapping[str, Mapping[str, Any]], steps: int) -> dict[str, Any]:
    """What every page needs beside its content: version, looks in light and dark, charts and what draws them.

    steps: how many densities a chart's ramp must tell apart.
    """
    looks = {"light": LIGHT, "dark": DARK}
    return {
        "version": version("tombola"),
        "font": Markup(FONT),
        "looks": {name: (theme, ramp(theme.ramp, steps)) for name, theme in looks.items()},
        "data": {
            "charts": {key: {**chart, "autosize": FIT} for key, chart in charts.items()},
            "themes": {
                name: vega_config(theme, steps) | {"legend": {"disable": True}} for name, theme in looks.items()
            },
        },
        "vega": Markup(bundle()),
    }


@functools.cache
def bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script that no text inside it can end early."""
    script = vl_convert.javascript_bundle(EXPOSE, vl_version="6.4")
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
