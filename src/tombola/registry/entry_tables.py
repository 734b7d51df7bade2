"""What is said of entries as tables: for the command, and for the pages of the documentation."""

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
    "means": "what it means if it does as well",
    "origin": "from",
}
"""What is said of entries, and its heading, where any entry of a kind has it."""
HEADINGS = {"controls": {"summary": "what it changes"}, "methods": {"summary": "what it does"}}

MARKED = re.compile(r"(<!-- entries: (\w+) -->\n).*?(<!-- end of entries -->)", re.DOTALL)


def entry_rows(kind: str, entries: Iterable[Entry]) -> tuple[list[str], list[list[str]]]:
    """The headings and rows of a table of entries of one kind, as "methods".

    Examples:
        >>> headings, rows = table("metrics", KINDS["metrics"].own.values())
        >>> headings, rows[0][0]
        (['metric', 'what it is'], 'accuracy')
    """
    registry = KINDS[kind]
    rows = [entry.to_json() for entry in entries]
    shown = [key for key in COLUMNS if any(key in row for row in rows)]
    headings = [registry.kind, *({**COLUMNS, **HEADINGS.get(kind, {})}[key] for key in shown)]
    return headings, [[str(row.get(key, "")) for key in ("name", *shown)] for row in rows]


def markdown(kind: str) -> str:
    """A table for a page: of Tombola's own."""
    headings, rows = entry_rows(kind, KINDS[kind].own.values())
    named = [[f"`{name}`", *rest] for name, *rest in rows]
    lines = [headings, ["---"] * len(headings), *named]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def fill_tables(page: str) -> str:
    """A page whose tables of entries, between `<!-- entries: KIND -->` and `<!-- end of entries -->`, are today's."""
    return MARKED.sub(lambda found: f"{found[1]}{markdown(found[2])}{found[3]}", page)
