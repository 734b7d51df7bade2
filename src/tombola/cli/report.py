"""tombola report DIR: write a study's report again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from tombola.cli.compare import publish
from tombola.studies import Study


@dataclass(frozen=True)
class ReportOptions:
    """Write the report of a finished compare, check or demo again."""

    folder: tyro.conf.Positional[Path]
    """the study's folder"""
    json: bool = False
    """print one machine-readable line and nothing else"""
    device: str = "auto"
    """accepted as every command does; nothing runs here"""


def run(words: Sequence[str]) -> int:
    options = tyro.cli(ReportOptions, args=words, prog="tombola report", description=ReportOptions.__doc__)
    done = Study.load(options.folder)
    return publish(done, options.folder, done.title, done.command, dict(done.task), options.json)
