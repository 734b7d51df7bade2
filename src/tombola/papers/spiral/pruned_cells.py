"""Tickets of pruning methods on the spiral: those to be found, and what became of them."""

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
    """One ticket and its accuracy.

    If its search diverged, it counts with the weights asked for and the accuracy of guessing.

    Args:
        method: name of the method.
        asked: how many weights the method was asked to keep.
        setting: name of learning rate and schedule.
        repeat: which repeat, from 0.
        weights: how many weights it keeps.
        size: how many weights and biases it keeps.
        accuracy: on all points, in [0, 1].
        how: digest of the method's settings.
        source: digest of the package's source that made it.
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
    """What became of one method's tickets.

    Args:
        method: name of the method.
        cells: its tickets.
        left: how many tickets there was no time for.
    """

    method: str
    cells: tuple[Cell, ...]
    left: int = 0

    def reaching(self, accuracy: float) -> Cell | None:
        """The ticket of the fewest weights that reached an accuracy; None if none did."""
        hits = [cell for cell in self.cells if cell.accuracy >= accuracy]
        return min(hits, key=lambda cell: (cell.weights, cell.size), default=None)

    @property
    def best(self) -> float | None:
        return max((cell.accuracy for cell in self.cells), default=None)

    def to_json(self, accuracy: float) -> dict[str, Any]:
        """The method's tickets as plain values; accuracy: the one that its fewest weights reach."""
        cell = self.reaching(accuracy)
        fewest = {"weights": cell.weights, "size": cell.size} if cell else None
        return {
            "method": self.method,
            "runs": len(self.cells),
            "left": self.left,
            "best": self.best,
            "fewest": fewest,
        }


@dataclass(frozen=True)
class Asked:
    """A ticket to be found.

    Args:
        name: name of the method.
        method: the method with the study's settings.
        weights: how many weights it should keep.
        setting: learning rate and schedule.
        repeat: which repeat, from 0.
        seed: of search and training.
    """

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
        """The finished ticket, with what it keeps and its accuracy."""
        request = (self.name, self.weights, self.setting.name, self.repeat)
        return Cell(*request, weights, size, accuracy, self.how, source_digest())

    def kept(self, mask: Mask, accuracy: float) -> Cell:
        """The finished ticket of a mask of weights and biases."""
        return self.cell(sum(mask.kept(f"{layer}.weight") for layer in LAYERS), mask.total_kept, accuracy)
