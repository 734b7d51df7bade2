"""Runs in trackio (pip install 'tombola[track]')."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trackio  # ty: ignore[import-not-found]

from tombola.studies import Result


class Trackio:
    """Tells trackio of runs; `trackio show` shows them.

    Args:
        root: the study's folder, whose name is the project's.
    """

    def __init__(self, root: Path) -> None:
        self._project = root.name

    def begin(self, name: str, settings: Mapping[str, Any]) -> None:
        """A run's calls begin."""
        labels = {key: settings.get(key) for key in ("label", "seed", "task", "threads", "device")}
        trackio.init(project=self._project, name=name, config=labels)

    def epoch(self, row: Mapping[str, int | float]) -> None:
        """One epoch of the run."""
        trackio.log({key: value for key, value in row.items() if isinstance(value, int | float)})

    def end(self, result: Result) -> None:
        """The run came to its end."""
        trackio.log({"metric": result.metric, "loss": result.loss, "weight_density": result.weight_density})
        trackio.finish()

    def fail(self, reason: str) -> None:
        """The run failed."""
        trackio.log({"failed": reason})
        trackio.finish()
