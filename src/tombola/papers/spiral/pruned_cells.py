"""Tickets of pruning methods on the spiral: those asked for, and what became of them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from tombola.methods import Method
from tombola.papers.spiral.spiral_runs import Setting
from tombola.papers.spiral.structures import LAYERS
from tombola.studies.spec import digest, source_digest
from tombola.tickets import Mask
from tombola.training import as_first_written, identity


@dataclass(frozen=True)
class Cell:
    """One ticket and what came of it: asked, kept weights, kept weights and biases, accuracy.

    Where the search for it diverged: what was asked for, and the accuracy of guessing. how: a digest of the method's
    settings; source: of the package's source that made it.
    """

    method: str
    asked: int
    setting: str
    repeat: int
    weights: int
    size: int
    accuracy: float
    how: str = ""
    source: str = ""

    @property
    def key(self) -> Hashable:
        return self.method, self.asked, self.setting, self.repeat, self.how


@dataclass(frozen=True)
class Fewest:
    """What became of one method's tickets; left: how many there was no time for."""

    method: str
    cells: tuple[Cell, ...]
    left: int = 0

    def reaching(self, accuracy: float) -> Cell | None:
        """The ticket of the fewest weights that reached an accuracy."""
        hits = [cell for cell in self.cells if cell.accuracy >= accuracy]
        return min(hits, key=lambda own: (own.weights, own.size), default=None)

    @property
    def best(self) -> float | None:
        return max((cell.accuracy for cell in self.cells), default=None)

    def to_json(self, accuracy: float) -> dict[str, Any]:
        found = self.reaching(accuracy)
        fewest = {"weights": found.weights, "size": found.size} if found else None
        return {
            "method": self.method,
            "runs": len(self.cells),
            "left": self.left,
            "best": self.best,
            "fewest": fewest,
        }


@dataclass(frozen=True)
class Asked:
    """A ticket to be found: by what, of how many weights, at which setting, for the how-manieth time; its seed."""

    name: str
    method: Method
    weights: int
    setting: Setting
    repeat: int
    seed: int

    @property
    def how(self) -> str:
        return digest(as_first_written(identity(self.method)))

    @property
    def key(self) -> Hashable:
        return self.name, self.weights, self.setting.name, self.repeat, self.how

    def cell(self, weights: int, size: int, accuracy: float) -> Cell:
        own = (self.name, self.weights, self.setting.name, self.repeat)
        return Cell(*own, weights, size, accuracy, self.how, source_digest())

    def kept(self, mask: Mask, accuracy: float) -> Cell:
        """The cell of a mask of weights and biases."""
        return self.cell(sum(mask.kept(f"{layer}.weight") for layer in LAYERS), mask.total_kept, accuracy)
