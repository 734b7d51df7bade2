"""tombola methods: what there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tyro
from rich.table import Table

from tombola.cli.console import console, print_json
from tombola.registry import KINDS

COLUMNS = {
    "summary": "what it does",
    "paper": "paper",
    "unit": "unit",
    "density": "density",
    "cost": "cost of the search",
    "needs": "needs",
    "means": "if it does as well",
    "origin": "from",
}
"""What is said of entries, and its heading."""


@dataclass(frozen=True)
class Methods:
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
    options = tyro.cli(Methods, args=words, prog="tombola methods", description=Methods.__doc__)
    registry = KINDS[options.kind]
    rows = [entry.to_json() for entry in registry.entries.values()]
    if options.json:
        print_json({options.kind: [{registry.kind: row.pop("name"), **row} for row in rows]})
        return 0
    shown = [key for key in COLUMNS if any(key in row for row in rows)]
    table = Table(registry.kind, *(COLUMNS[key] for key in shown))
    for row in rows:
        table.add_row(*(str(row.get(key, "")) for key in ("name", *shown)))
    console().print(table)
    return 0
