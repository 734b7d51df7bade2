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
from tombola.studies import Engine, Store, Study
from tombola.training import bars


@dataclass(frozen=True)
class RunOptions:
    """How to run."""

    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, …"""
    json: bool = False
    """print one machine-readable line and nothing else"""
    fresh: bool = False
    """make finished runs again"""


@contextmanager
def engine(options: RunOptions, root: Path) -> Generator[Engine]:
    """The engine that the options ask for."""
    with bars(not options.json) as shown:
        yield Engine(Store(root), device_of(options.device), shown, options.fresh)


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


def verdicts_json(study: Study) -> list[dict[str, Any]]:
    return [asdict(verdict) | {"sentence": verdict.sentence} for verdict in study.verdicts]


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
