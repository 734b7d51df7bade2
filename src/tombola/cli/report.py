"""tombola report FOLDER: write the report of a finished study again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from tombola.cli.compare import publish
from tombola.cli.console import print_json
from tombola.cli.output import refuse_foreign
from tombola.cli.parse import read
from tombola.report import write_paper
from tombola.studies import Study


@dataclass(frozen=True)
class ReportOptions:
    """Write the report of a finished study again; nothing is trained."""

    folder: tyro.conf.Positional[Path]
    """folder that demo, check, compare, sanity, robustness or sparsest METHOD wrote (their --out)"""
    out: Path | None = None
    """folder of the page; FOLDER itself if not given"""
    paper: Path | None = None
    """folder for LaTeX, in place of a page: tables, figures at column width, a paragraph on methods, BibTeX"""
    json: bool = False
    """print one line of JSON and nothing else, for programs"""
    device: str = "auto"
    """no effect here; accepted because every command accepts it"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    options = read(ReportOptions, "report", words)
    study = Study.load(options.folder)
    if options.paper is not None:
        written = write_paper(study, options.paper)
        if options.json:
            print_json({"paper": [str(path) for path in written]})
        else:
            print("\n".join(["Written for LaTeX; paper.tex holds all of it:", *(f"  {path}" for path in written)]))
        return 0
    out = options.out or options.folder
    refuse_foreign(out)
    return publish(study, out, study.title, study.command, dict(study.task), options.json)
