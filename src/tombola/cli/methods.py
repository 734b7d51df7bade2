"""tombola methods: what there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tyro
from rich.table import Table

from tombola.cli.output import console, print_json
from tombola.methods import METHODS
from tombola.training import describe


@dataclass(frozen=True)
class Methods:
    """What methods there are, with paper, granularity, density kind and cost."""

    json: bool = False
    """print one machine-readable line and nothing else"""
    device: str = "auto"
    """accepted as every command does; nothing runs here"""


def run(words: Sequence[str]) -> int:
    options = tyro.cli(Methods, args=words, prog="tombola methods", description=Methods.__doc__)
    rows = [
        {
            "method": name,
            "summary": preset.summary,
            "paper": preset.paper,
            "granularity": preset.granularity,
            "density": preset.method.density_kind,
            "cost": preset.cost,
            "settings": describe(preset.method),
        }
        for name, preset in METHODS.items()
    ]
    if options.json:
        print_json({"methods": rows})
        return 0
    table = Table("method", "what it does", "paper", "unit", "density", "cost of the search")
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("method", "summary", "paper", "granularity", "density", "cost")))
    console().print(table)
    return 0
