"""A claim's protocol that compares no trained arms: a function that gives named figures for each seed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from tombola.fields import known_fields
from tombola.files import parsed, text_of, write_atomically
from tombola.papers.claims.units import Unit
from tombola.studies import Engine, source_digest
from tombola.studies.spec import conditions, digest


class FigureFunction(Protocol):
    """A dataclass that gives figures by name, of a seed."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __call__(self, seed: int, engine: Engine, data_dir: Path | None) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class MeasuredRow:
    """The figures of one seed, as a line of a record."""

    seed: int
    figures: dict[str, float]
    seconds: float
    settings: dict[str, Any]
    source: str


@dataclass(frozen=True)
class MeasuredFigure:
    """One of them: what an arm came to in one seed."""

    metric: float
    taken: MeasuredRow


@dataclass(frozen=True)
class Measurement:
    """What is measured of each seed, and in what its figures are counted.

    take: from seed, engine and the data's folder to figures by name; all its fields, with the figures' names, decide
    whether a record still counts. ran: what it does, in words. minutes: what all seeds took on two cores.
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
        """What is measured, as plain values."""
        named = {"type": type(self.take).__name__, **asdict(self.take)}
        return json.loads(json.dumps({"take": named, "figures": sorted(self.units)}))

    def settings(self, engine: Engine) -> dict[str, Any]:
        """What decides the figures, but for the seed, and the conditions here."""
        return {**self.asked, **conditions(engine.executor.device)}

    def carry_out(self, engine: Engine, records: Path | None, data_dir: Path | None) -> list[MeasuredRow]:
        """The figures of every seed; those that are on record for the same settings are read."""
        settings = self.settings(engine)
        done = load_taken(records) if records is not None and not engine.store.fresh else []
        known = {own.seed: own for own in done if digest(own.settings) == digest(settings)}
        taken = []
        with engine.executor.bars.track("seeds", self.seeds) as tick:
            for seed in range(self.seeds):
                taken.append(known.get(seed) or self._taken(seed, engine, settings, data_dir))
                if records is not None:
                    save_taken(records, taken)
                tick(f"seed {seed}")
        return taken

    def figures(self, taken: Iterable[MeasuredRow]) -> dict[str, list[MeasuredFigure]]:
        """Each arm's figures by seed."""
        seeds = list(taken)
        return {name: [MeasuredFigure(own.figures[name], own) for own in seeds] for name in self.units}

    def _taken(self, seed: int, engine: Engine, settings: dict[str, Any], data_dir: Path | None) -> MeasuredRow:
        started = time.perf_counter()
        figures = dict(self.take(seed, engine, data_dir))
        return MeasuredRow(seed, figures, time.perf_counter() - started, settings, source_digest())


def save_taken(path: Path, taken: Iterable[MeasuredRow]) -> None:
    """One line a seed, written beside and renamed."""
    write_atomically(path, "".join(json.dumps(asdict(own)) + "\n" for own in taken))


def load_taken(path: Path) -> list[MeasuredRow]:
    """The seeds in a file, none if it is not there; TombolaError naming the line that is damaged."""
    return list(parsed(path, text_of(path), lambda content: MeasuredRow(**known_fields(MeasuredRow, content))))
