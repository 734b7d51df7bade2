"""A further section of a study's report: what was measured beside its runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec


@dataclass(frozen=True)
class Section:
    """A section of the report, as plain data.

    Args:
        key: what identifies it on the page.
        title: its heading.
        paragraphs: what it says.
        head: the heads of its table.
        rows: of its table.
        pictures: SVG texts by their titles.
    """

    key: str
    title: str
    paragraphs: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    pictures: Mapping[str, str] = field(default_factory=dict)
