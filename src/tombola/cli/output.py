"""Where results go: a table for people, or one JSON line for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tombola.errors import TombolaError
from tombola.report.words import number
from tombola.studies import Engine, Store, Study
from tombola.training import Meter, bars


@dataclass(frozen=True)
class RunOptions:
    """How to run."""

    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, …"""
    json: bool = False
    """print one machine-readable line and nothing else"""
    fresh: bool = False
    """make finished runs again"""
    country: str = ""
    """ISO code of the country whose grid powers this machine, as DEU, to estimate energy and carbon (extra `energy`)"""

    @property
    def meter(self) -> Meter | None:
        return Meter(self.country) if self.country else None


@contextmanager
def engine(options: RunOptions, root: Path) -> Generator[Engine]:
    """The engine that the options ask for."""
    with bars(not options.json) as shown:
        yield Engine(Store(root), device_of(options.device), shown, options.fresh, meter=options.meter)


def device_of(name: str) -> torch.device:
    """The device of this name; TombolaError if it is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise TombolaError(f"there is no device '{name}' here; give --device cpu") from error
    return device


def console() -> Console:
    """Standard output, wide enough for a table when it is not a terminal."""
    own = Console()
    return own if own.is_terminal else Console(width=140)


def print_json(content: Mapping[str, Any]) -> None:
    """One line of strict JSON; what is not a finite number becomes null."""
    print(json.dumps(_strict(content)))


def work(cost: Mapping[str, float]) -> str:
    """Seconds of a cost, and its energy and carbon where they were estimated."""
    seconds, energy, carbon = (cost.get(key, 0.0) for key in ("seconds", "energy", "carbon"))
    estimated = f", about {number(1000 * energy)} Wh and {number(1000 * carbon)} g CO₂e" if energy else ""
    return f"{seconds:.1f} s{estimated}"


def verdicts_json(study: Study) -> list[dict[str, Any]]:
    return [asdict(verdict) | {"sentence": verdict.sentence} for verdict in study.verdicts]


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
