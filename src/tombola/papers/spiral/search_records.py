"""What a study has tried, one line each, so that a killed one goes on."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np

from tombola.errors import FileError, TombolaError
from tombola.files import append, parsed, read_as, text_of, write_atomically
from tombola.papers.spiral.spiral_runs import Values
from tombola.papers.spiral.structures import INPUTS, LAYERS, Structure


class Line(Protocol):
    """A frozen dataclass of plain values; key: what no two lines share."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def key(self) -> Hashable: ...


L = TypeVar("L", bound=Line)


@dataclass(frozen=True)
class Row:
    """One structure once at each setting: accuracies, and the values of the best network if they are to be kept.

    source: a digest of the package's source that made it.
    """

    structure: str
    seed: int
    accuracies: list[float]
    values: Values | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if not self.accuracies or not all(0 <= accuracy <= 1 for accuracy in self.accuracies):
            raise ValueError("its accuracies are not shares from 0 to 1, one for each setting")
        if self.values is not None:
            _check_values(self.values, self.structure)

    @property
    def key(self) -> tuple[str, int]:
        return self.structure, self.seed


def _check_values(values: Values, structure: str) -> None:
    """Raise ValueError unless values are those of all layers of this structure, as numbers."""
    try:
        sizes = (INPUTS, *Structure.parse(structure).widths, 1)
    except TombolaError as error:
        raise ValueError(str(error)) from error
    shapes = {name: np.shape(np.asarray(value, float)) for name, value in values.items()}
    layers = dict(zip(LAYERS, pairwise(sizes), strict=True))
    weights = {f"{name}.weight": (rows, columns) for name, (columns, rows) in layers.items()}
    biases = {f"{name}.bias": (rows,) for name, (_, rows) in layers.items()}
    if shapes != weights | biases:
        raise ValueError(f"its values are not those of the layers of {structure}")


class Records(Generic[L]):
    """Lines of one kind in a file: a group's are written when it is finished, and read where a study goes on."""

    def __init__(self, path: Path, kind: type[L]) -> None:
        self.path = path
        self.rows: dict[Hashable, L] = {}
        whole, _, half = text_of(path).rpartition("\n")
        for row in parsed(path, whole, lambda content: read_as(kind, content)):
            self.rows[row.key] = row
        if half:
            self._forget(whole, half, f'{{"{fields(kind)[0].name}": ')

    def add(self, rows: Iterable[L]) -> None:
        """Write a finished group; a kill after that loses nothing of it."""
        new = {row.key: row for row in rows}
        lines = [json.dumps({k: v for k, v in asdict(row).items() if v is not None}) for row in new.values()]
        append(self.path, "".join(line + "\n" for line in lines))
        self.rows |= new

    def _forget(self, whole: str, half: str, begins: str) -> None:
        """Leave out the line in whose middle a kill came; what begins otherwise is not Tombola's."""
        if not half.startswith(begins[: len(half)]):
            raise FileError(f"{self.path} ends in what no search wrote; move it away, to begin anew")
        write_atomically(self.path, whole + "\n" if whole else "")
