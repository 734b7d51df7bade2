"""tombola methods [KIND]: list the methods, or another kind of entry in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tyro

from tombola.cli.console import console, print_json
from tombola.cli.parse import read
from tombola.registry import KINDS
from tombola.registry.entry_tables import entry_rows
from tombola.terminal_table import Column, TerminalTable


@dataclass(frozen=True)
class MethodsOptions:
    """List the methods: what each removes (granularity), how its density is set, what its search costs, and its paper.

    Density is the share kept. A method keeps exactly the share asked for ("exact"), at most that share ("bound"), or
    a share that it finds itself ("outcome"). Name another kind to list scores, granularities, controls, data, models,
    losses or metrics.
    """

    kind: tyro.conf.Positional[
        Literal["methods", "scores", "granularities", "controls", "data", "models", "losses", "metrics"]
    ] = "methods"
    """what to list"""
    json: bool = False
    """print one line of JSON and nothing else, for programs"""
    device: str = "auto"
    """no effect here; accepted because every command accepts it"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    options = read(MethodsOptions, "methods", words)
    registry = KINDS[options.kind]
    entries = registry.entries.values()
    if options.json:
        rows = [entry.to_json() for entry in entries]
        print_json({options.kind: [{registry.kind: row.pop("name"), **row} for row in rows]})
        return 0
    headings, rows = entry_rows(options.kind, entries)
    name, what, *further = headings  # the first two stay; of the others the last goes first
    others = (Column(own, drop=place, left=True, least=12) for place, own in enumerate(further, 1))
    table = TerminalTable((Column(name, left=True), Column(what, left=True, least=34), *others))
    for row in rows:
        table.add(*row)
    console().print(table)
    return 0
