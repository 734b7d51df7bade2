"""What a search for the sparsest network came to: what was tried with its hit rates, and the network found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tombola import zoo
from tombola.evidence import proportion
from tombola.papers.spiral.spiral_runs import Setting, Values
from tombola.papers.spiral.structures import Structure


@dataclass(frozen=True)
class TriedStructure:
    """One structure and the accuracies of all its runs."""

    structure: Structure
    accuracies: tuple[float, ...]

    def hits(self, accuracy: float) -> int:
        """How many runs reached an accuracy."""
        return sum(own >= accuracy for own in self.accuracies)

    def rate(self, accuracy: float) -> tuple[float, float, float]:
        """The share of runs that reached an accuracy, and its 95 % interval (Wilson)."""
        return proportion(self.hits(accuracy), len(self.accuracies))

    @property
    def best(self) -> float:
        return max(self.accuracies)


@dataclass(frozen=True)
class FoundNetwork:
    """A trained network that reached the accuracy."""

    structure: Structure
    accuracy: float
    seed: int
    setting: Setting
    values: Values

    def network(self) -> nn.Sequential:
        """The trained network, in evaluation mode."""
        model = zoo.spiral_block(self.structure.widths)
        model.load_state_dict({name: torch.tensor(own) for name, own in self.values.items()})
        return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class SparsestNetwork:
    """The sparsest network found, the sparsest of whole widths, and all that was tried.

    ended: the parts of the search that were begun, and whether they came to their end within the budget; runs, seconds:
    what was trained anew.
    """

    accuracy: float
    found: FoundNetwork | None
    dense: FoundNetwork | None
    tried: tuple[TriedStructure, ...]
    ended: Mapping[str, bool]
    runs: int
    seconds: float

    @property
    def sentence(self) -> str:
        """The answer in plain words."""
        total, cheaper = sum(len(own.accuracies) for own in self.tried), ""
        if self.found is None:
            return f"no network of {len(self.tried):,} tried, in {total:,} runs, reaches {self.accuracy:.4g}"
        own = self.found.structure
        below = [tried for tried in self.tried if tried.structure.size < own.size]
        lost = sum(tried.hits(self.accuracy) > 0 for tried in below)
        cheaper = f"; none of the {len(below):,} smaller ones that were tried does" if below else ""
        if lost:
            cheaper = f"; {lost:,} of {len(below):,} smaller ones that were tried did, whose values were not kept"
        return (
            f"{own.weights} weights and {own.size - own.weights} biases reach {self.found.accuracy:.2%} of the points "
            f"(widths {', '.join(map(str, own.widths))}){cheaper}, in {total:,} runs"
        )

    def to_json(self) -> dict[str, Any]:
        """The answer and the hit rates as plain values."""
        return {
            "sentence": self.sentence,
            "accuracy": self.accuracy,
            "found": _plain(self.found),
            "widths_found": _plain(self.dense),
            "ended": dict(self.ended),
            "runs": self.runs,
            "seconds": self.seconds,
            "tried": [
                {
                    "structure": own.structure.name,
                    "weights": own.structure.weights,
                    "size": own.structure.size,
                    "runs": len(own.accuracies),
                    "hits": own.hits(self.accuracy),
                    "interval": own.rate(self.accuracy)[1:],
                    "best": own.best,
                }
                for own in self.tried
            ],
        }


def _plain(found: FoundNetwork | None) -> dict[str, Any] | None:
    if found is None:
        return None
    own = found.structure
    return {
        "structure": own.name,
        "widths": list(own.widths),
        "weights": own.weights,
        "biases": own.size - own.weights,
        "accuracy": found.accuracy,
        "seed": found.seed,
        "setting": found.setting.name,
        "values": found.values,
    }
