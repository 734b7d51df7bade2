"""Checkpoints of the loop: written beside and renamed, read without pickle."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import torch

from tombola.tickets import write_atomically


class Checkpoint:
    """One file that holds the loop's state after its last whole epoch, written at most every few seconds."""

    def __init__(self, path: Path, every: float = 5.0) -> None:
        self.path = path
        self._every = every
        self._written = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._written >= self._every

    def save(self, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.path, buffer.getvalue())
        self._written = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The saved state, on the CPU; None if there is none."""
        if not self.path.exists():
            return None
        return torch.load(self.path, map_location="cpu", weights_only=True)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
