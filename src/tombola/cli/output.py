"""How a command runs, and what it says of costs and verdicts."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tombola.errors import TombolaError
from tombola.report.prose import number
from tombola.studies import Engine, Serial, Store, Study
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
    exact: bool = False
    """use finished runs only if they were made with as many threads, on such a device; make them beside the others"""
    trust: bool = False
    """import the data and the model that a ticket's file names as module:function; for files of people you trust"""
    country: str = ""
    """ISO code of the country whose grid powers this machine, as DEU, to estimate energy and carbon (extra `energy`)"""

    @property
    def meter(self) -> Meter | None:
        return Meter(self.country) if self.country else None


@contextmanager
def engine(options: RunOptions, root: Path) -> Generator[Engine]:
    """The engine that the options ask for."""
    with bars(not options.json) as shown:
        store = Store(root, options.fresh, options.exact)
        yield Engine(store, Serial(chosen_device(options.device), shown, options.meter))


def chosen_device(name: str) -> torch.device:
    """The device of this name; TombolaError if it is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise TombolaError(f"there is no device '{name}' here; give --device cpu") from error
    return device


def work(cost: Mapping[str, float]) -> str:
    """Seconds of a cost, and its energy and carbon where they were estimated."""
    seconds, energy, carbon = (cost.get(key, 0.0) for key in ("seconds", "energy", "carbon"))
    estimated = f", about {number(1000 * energy)} Wh and {number(1000 * carbon)} g CO₂e" if energy else ""
    return f"{seconds:.1f} s{estimated}"


def verdicts_json(study: Study) -> list[dict[str, Any]]:
    return [asdict(verdict) | {"sentence": verdict.sentence} for verdict in study.verdicts]
