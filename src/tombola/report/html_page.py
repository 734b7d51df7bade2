"""The HTML page: one file that holds everything and makes no network request."""

from __future__ import annotations

import base64
import functools
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tombola.evidence import Ranking, Sanity, Verdict
from tombola.files import write_atomically
from tombola.report import page_tables, prose, ranking_tables, robustness_tables, sanity_tables, standings
from tombola.report.arms import GatheredArms
from tombola.report.exports import Export, exports
from tombola.report.panels import Figure, figures
from tombola.report.shared_settings import flat, settings_of_arms, shared_settings_of
from tombola.report.theme import DARK, FONT, LIGHT, ramp, vega_config
from tombola.report.training_length import advice, too_brief
from tombola.report.words import words
from tombola.studies.result import Result
from tombola.studies.sections import Section

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
    rankings: Sequence[Ranking] = (),
    sections: Sequence[Section] = (),
    page: str = "report.html",
) -> Path:
    """Write the page into a folder, and beside it its figures as SVG, PDF and PNG files.

    Args:
        results: of all runs.
        verdicts: one for each method and density that was checked.
        folder: where to write; it is made if it is missing.
        title: the page's heading.
        command: the command line that repeats the study; none is shown if empty.
        task: what describes the task, by name; values may be mappings.
        checks: the sanity checks that were made.
        rankings: of the methods against each other.
        sections: what was measured beside the runs.
        page: the name of the page's file.

    Returns:
        The path of the page.
    """
    study = GatheredArms.of(results, verdicts, checks, rankings)
    drawn = figures(study)
    taken = exports(study, drawn)
    path = Path(folder) / page
    write_atomically(path, render(study, drawn, taken, title=title, command=command, task=task, sections=sections))
    for name, figure in taken.items():
        for kind, content in figure.files.items():
            write_atomically(path.with_name(f"{name}.{kind}"), content)
    return path


def render(
    study: GatheredArms,
    drawn: Mapping[str, Figure],
    taken: Mapping[str, Export],
    *,
    title: str,
    command: str = "",
    task: Mapping[str, Any] = {},
    sections: Sequence[Section] = (),
) -> str:
    """The page's HTML; the arguments are those of `write_report`, with the figures drawn and as files."""
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
            robustness_tables=robustness_tables,
            sanity_tables=sanity_tables,
            ranking_tables=ranking_tables,
            standings=standings,
            words=words(study),
            brief=too_brief(study),
            advice=advice(study),
            taken=taken,
            rankings=study.rankings,
            further=sections,
            data_address=data_address,
            figures=drawn,
            shared=shared_settings_of(results),
            settings_of_arms=settings_of_arms,
            **dressed(charts, len(study.densities)),
        )
    )


def environment(*folders: Path) -> Environment:
    """Reads templates from these folders, then from this package's; text is escaped, a missing name is an error."""
    made = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.tests["one_command"] = is_one_command  # ty: ignore[invalid-assignment]
    return made


def is_one_command(text: str) -> bool:
    """Whether a text, which may be anybody's, is a command of Tombola's alone, as it is typed in a shell.

    Examples:
        >>> is_one_command("tombola compare imp --out 'my runs'"), is_one_command("tombola compare imp; reboot")
        (True, False)
    """
    try:
        words = shlex.split(text)
    except ValueError:
        return False
    return words[:1] == ["tombola"] and shlex.join(words) == text


def dressed(charts: Mapping[str, Mapping[str, Any]], steps: int) -> dict[str, Any]:
    """What every page's template needs beside its content: version, light and dark looks, charts and Vega.

    Args:
        charts: Vega-Lite specifications by the key of their place on the page.
        steps: the number of densities whose colours must differ.
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


def data_address(content: str | bytes, kind: str = "image/svg+xml") -> str:
    """A file as an address that holds it.

    Args:
        content: of the file; a text for SVG.
        kind: its media type.
    """
    raw = content.encode() if isinstance(content, str) else content
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


@functools.cache
def bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script."""
    script = vl_convert.javascript_bundle(EXPOSE, vl_version="6.4")
    # In HTML, these two texts would end or hide the script; the backslash means nothing in JavaScript's strings.
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
