"""A claim's protocol that trains no arms: a function that gives named figures for each seed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from tombola.files import parsed, read_as, text_of, write_atomically
from tombola.papers.claims.units import Unit
from tombola.studies import Engine, source_digest
from tombola.studies.spec import conditions, digest


class FigureFunction(Protocol):
    """A dataclass whose call gives the figures of one seed by name."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __call__(self, seed: int, engine: Engine, data_dir: Path | None) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class MeasuredRow:
    """The figures of one seed, as a line of a record.

    Args:
        seed: which one.
        figures: by name.
        seconds: how long they took.
        settings: what decides them, and the conditions under which they were taken.
        source: digest of the package's source that took them.
    """

    seed: int
    figures: dict[str, int | float]
    seconds: float
    settings: dict[str, Any]
    source: str


@dataclass(frozen=True)
class MeasuredFigure:
    """One figure of one seed, in place of the result of a trained arm.

    Args:
        metric: the figure.
        taken: the row it comes from.
    """

    metric: float
    taken: MeasuredRow


@dataclass(frozen=True)
class Measurement:
    """A function that is called for each seed, and the units of the figures it gives.

    Args:
        take: gives figures by name from a seed, an engine and the data's folder. All its fields and the figures' names
            decide whether a record still counts.
        units: the unit of each figure.
        seeds: how many seeds there are.
        minutes: how long all of them took on two cores.
        ran: what the function does, in words for the page.
    """

    take: FigureFunction
    units: Mapping[str, Unit]
    seeds: int
    minutes: str
    ran: str

    metered: ClassVar[bool] = False

    @property
    def arms(self) -> Mapping[str, Unit]:
        return self.units

    @property
    def runs(self) -> int:
        return self.seeds

    @property
    def asked(self) -> dict[str, Any]:
        """The function's settings and the figures' names as plain values."""
        take = {"type": type(self.take).__name__, **asdict(self.take)}
        # To JSON and back, so that tuples are lists, as in a record that was read.
        return json.loads(json.dumps({"take": take, "figures": sorted(self.units)}))

    def settings(self, engine: Engine) -> dict[str, Any]:
        """What decides the figures of a seed, and the conditions on this machine."""
        return {**self.asked, **conditions(engine.executor.device, engine.executor.threads)}

    def carry_out(self, engine: Engine, records: Path | None, data_dir: Path | None) -> list[MeasuredRow]:
        """Take the figures of every seed that is not on record.

        Args:
            engine: carries out the runs that the figures need.
            records: the file of records, written after each seed; rows of the same settings are read from it.
            data_dir: the folder of the data; None for the usual places.
        """
        settings = self.settings(engine)
        on_record = load_taken(records) if records is not None and not engine.store.fresh else []
        known = {row.seed: row for row in on_record if digest(row.settings) == digest(settings)}
        rows = []
        with engine.executor.bars.track("seeds", self.seeds) as tick:
            for seed in range(self.seeds):
                rows.append(known.get(seed) or self._measure(seed, engine, settings, data_dir))
                if records is not None:
                    save_taken(records, rows)
                tick(f"seed {seed}")
        return rows

    def figures(self, taken: Iterable[MeasuredRow]) -> dict[str, list[MeasuredFigure]]:
        """Each figure by name, in the order of the seeds."""
        rows = list(taken)
        return {name: [MeasuredFigure(row.figures[name], row) for row in rows] for name in self.units}

    def _measure(self, seed: int, engine: Engine, settings: dict[str, Any], data_dir: Path | None) -> MeasuredRow:
        started = time.perf_counter()
        figures = dict(self.take(seed, engine, data_dir))
        return MeasuredRow(seed, figures, time.perf_counter() - started, settings, source_digest())


def save_taken(path: Path, taken: Iterable[MeasuredRow]) -> None:
    """Write one line of JSON a seed; a kill leaves the old file or the new one."""
    write_atomically(path, "".join(json.dumps(asdict(row)) + "\n" for row in taken))


def load_taken(path: Path) -> list[MeasuredRow]:
    """Read the rows of a file; none if there is no file.

    Raises:
        TombolaError: if a line is damaged; it names the line.
    """
    return list(parsed(path, text_of(path), lambda content: read_as(MeasuredRow, content)))
