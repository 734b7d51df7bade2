"""Tables of registry entries, for the command and for the pages of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tombola.registry import KINDS, Entry

COLUMNS = {
    "summary": "what it is",
    "paper": "paper",
    "unit": "unit",
    "density": "density",
    "cost": "cost of the search",
    "needs": "needs",
    "metric": "the metric that goes with it",
    "means": "what it means if it does as well",
    "origin": "from",
}
"""The headings of the columns, by the field of an entry. A table leaves out a field that all its entries lack."""
HEADINGS = {"controls": {"summary": "what it changes"}, "methods": {"summary": "what it does"}}
"""Headings that differ for one kind of entries."""

MARKED = re.compile(r"(<!-- entries: (\w+) -->\n).*?(<!-- end of entries -->)", re.DOTALL)


def entry_rows(kind: str, entries: Iterable[Entry]) -> tuple[list[str], list[list[str]]]:
    """A table of entries of one kind.

    Args:
        kind: a key of `KINDS`, as "methods".
        entries: one entry a row.

    Returns:
        The headings, and the rows in the order of the entries.

    Examples:
        >>> headings, rows = entry_rows("metrics", KINDS["metrics"].own.values())
        >>> headings, rows[0][0]
        (['metric', 'what it is', 'unit', 'needs'], 'accuracy')
    """
    registry = KINDS[kind]
    descriptions = [entry.to_json() for entry in entries]
    columns = [key for key in COLUMNS if any(key in description for description in descriptions)]
    headings = [registry.kind, *({**COLUMNS, **HEADINGS.get(kind, {})}[key] for key in columns)]
    return headings, [[str(entry.get(key, "")) for key in ("name", *columns)] for entry in descriptions]


def markdown(kind: str) -> str:
    """A Markdown table of Tombola's own entries of one kind, a key of `KINDS`."""
    headings, rows = entry_rows(kind, KINDS[kind].own.values())
    rows = [[f"`{name}`", *cells] for name, *cells in rows]
    lines = [headings, ["---"] * len(headings), *rows]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def fill_tables(page: str) -> str:
    """A page with new tables between each pair of `<!-- entries: KIND -->` and `<!-- end of entries -->`."""
    return MARKED.sub(lambda match: f"{match[1]}{markdown(match[2])}{match[3]}", page)
