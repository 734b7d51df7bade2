"""What a search for the sparsest network has tried, one line a structure and seed, so that a killed search goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tombola.errors import TombolaError
from tombola.studies.sparsest.runs import Values
from tombola.studies.sparsest.structures import Structure


@dataclass(frozen=True)
class Row:
    """One structure once at each setting: accuracies, and the values of the best network if they are to be kept."""

    structure: str
    seed: int
    accuracies: tuple[float, ...]
    values: Values | None = None


class Records:
    """Rows in a file: a group's are written when it is finished, and read where a search begins or goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple[str, int], Row] = {}
        text = path.read_text() if path.exists() else ""
        whole, end, half = text.rpartition("\n")
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                content = json.loads(line)
                row = Row(**content | {"accuracies": tuple(content["accuracies"])})
            except (ValueError, TypeError, KeyError) as error:
                raise TombolaError(f"{path} is damaged in line {number} ({error}); remove that line") from error
            self.rows[row.structure, row.seed] = row
        if half:  # a kill in the middle of a line
            path.write_text(whole + end)

    def has(self, structure: Structure, seed: int) -> bool:
        return (structure.name, seed) in self.rows

    def add(self, rows: Iterable[Row]) -> None:
        """Write a finished group; it is on the disk when this returns."""
        new = {(row.structure, row.seed): row for row in rows}
        lines = [json.dumps({k: v for k, v in asdict(row).items() if v is not None}) for row in new.values()]
        with self.path.open("a") as file:
            file.write("".join(line + "\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        self.rows |= new
