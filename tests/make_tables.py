"""Write the pages' tables of entries anew from the registry: `python tests/make_tables.py`."""

from __future__ import annotations

from pathlib import Path

from tombola.registry.entry_tables import fill_tables

if __name__ == "__main__":
    for page in (Path(__file__).parents[1] / "docs").rglob("*.md"):
        page.write_text(fill_tables(page.read_text()))
