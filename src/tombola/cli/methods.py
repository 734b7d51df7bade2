"""tombola methods: what there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tyro
from rich.table import Table

from tombola.cli.console import console, print_json
from tombola.registry import KINDS
from tombola.registry.entry_tables import entry_rows


@dataclass(frozen=True)
class MethodsOptions:
    """What methods there are, with paper, granularity, density kind and cost; or scores, controls, data, models, …"""

    kind: tyro.conf.Positional[
        Literal["methods", "scores", "granularities", "controls", "data", "models", "metrics"]
    ] = "methods"
    """what is listed"""
    json: bool = False
    """print one machine-readable line and nothing else"""
    device: str = "auto"
    """accepted as every command does; nothing runs here"""


def run(words: Sequence[str]) -> int:
    options = tyro.cli(MethodsOptions, args=words, prog="tombola methods", description=MethodsOptions.__doc__)
    registry = KINDS[options.kind]
    entries = registry.entries.values()
    if options.json:
        rows = [entry.to_json() for entry in entries]
        print_json({options.kind: [{registry.kind: row.pop("name"), **row} for row in rows]})
        return 0
    headings, rows = entry_rows(options.kind, entries)
    shown = Table(*headings)
    for row in rows:
        shown.add_row(*row)
    console().print(shown)
    return 0
