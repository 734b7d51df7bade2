"""Tables for terminals of any width: the columns that matter least are left out where there is no room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

GAP = 1
"""Blanks behind each column."""


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        head: its heading.
        drop: columns with a higher number are left out first; one with 0 always stays.
        left: its cells begin at the left, as words do.
        least: the width to which its words may be folded; 0 for a column that is never folded.
    """

    head: str
    drop: int = 0
    left: bool = False
    least: int = 0


@dataclass
class TerminalTable:
    """A table that fits the terminal; printed by rich.

    Args:
        columns: what it has, from the left.
        title: above it.
        caption: below it.
    """

    columns: Sequence[Column]
    title: str = ""
    caption: str = ""
    _rows: list[tuple[Sequence[str | Text], bool]] = field(default_factory=list, repr=False)

    def add(self, *cells: str | Text, end: bool = False) -> None:
        """Add a row; `end`: a gap follows."""
        self._rows.append((cells, end))

    def shown(self, width: int) -> list[int]:
        """The places of the columns for which there is room."""
        places = list(range(len(self.columns)))
        while self._width(places) > width and any(self.columns[place].drop for place in places):
            places.remove(max(places, key=lambda place: (self.columns[place].drop, place)))
        return places

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        places = self.shown(options.max_width)
        table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0))
        for place in places:
            own = self.columns[place]
            wraps = own.least > 0
            table.add_column(
                own.head,
                justify="left" if own.left else "right",
                no_wrap=not wraps,
                overflow="fold",
                min_width=min(own.least, self._widest(place)) if wraps else None,
            )
        for cells, end in self._rows:
            table.add_row(*(cells[place] for place in places), end_section=end)
        if self.title:
            yield Text(self.title, style="italic")
        yield table
        if below := self._below(places):
            yield Text(below, style="dim")

    def _below(self, places: Sequence[int]) -> str:
        gone = [" ".join(own.head.split()) for i, own in enumerate(self.columns) if i not in places]
        said = f"No room here for: {', '.join(gone)}." if gone else ""
        return "\n".join(filter(None, [self.caption, said]))

    def _width(self, places: Sequence[int]) -> int:
        return sum(self._least(place) for place in places) + (GAP + 1) * len(places)

    def _least(self, place: int) -> int:
        least = self.columns[place].least
        return min(least, self._widest(place)) if least else self._widest(place)

    def _widest(self, place: int) -> int:
        texts = [self.columns[place].head, *(str(cells[place]) for cells, _ in self._rows)]
        return max(cell_len(line) for text in texts for line in text.splitlines() or [""])
