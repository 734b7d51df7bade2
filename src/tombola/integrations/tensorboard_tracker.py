"""Runs in TensorBoard (pip install 'tombola[track]')."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from tombola.studies import Result


class TensorBoard:
    """Writes runs for `tensorboard --logdir FOLDER/tensorboard`.

    Args:
        root: the study's folder.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / "tensorboard"
        self._writer: Any = None

    def begin(self, name: str, settings: Mapping[str, Any]) -> None:
        """A run's calls begin."""
        self._writer = SummaryWriter(self._folder / name)
        self._writer.add_text("label", str(settings.get("label") or "dense"))

    def epoch(self, row: Mapping[str, int | float]) -> None:
        """One epoch of the run."""
        for key, value in row.items():
            if key != "epoch" and isinstance(value, int | float):
                self._writer.add_scalar(key, value, int(row["epoch"]))

    def end(self, result: Result) -> None:
        """The run came to its end."""
        for key in ("metric", "loss", "weight_density"):
            self._writer.add_scalar(f"test/{key}", getattr(result, key), result.epochs)
        self._writer.close()

    def fail(self, reason: str) -> None:
        """The run failed."""
        self._writer.add_text("failed", reason)
        self._writer.close()
