"""The outcome of a search for the sparsest network: what was tried with its hit rates, and the network found."""

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
    """One structure and the accuracies of all its runs.

    Args:
        structure: what was trained.
        accuracies: of its runs, in [0, 1], by seed and setting.

    Examples:
        >>> tried = TriedStructure(Structure((3, 2, 2)), (0.96, 0.5, 0.7, 0.8))
        >>> tried.hits(0.95), tried.best
        (1, 0.96)
    """

    structure: Structure
    accuracies: tuple[float, ...]

    def hits(self, accuracy: float) -> int:
        """How many runs reached an accuracy."""
        return sum(reached >= accuracy for reached in self.accuracies)

    def rate(self, accuracy: float) -> tuple[float, float, float]:
        """The share of runs that reached an accuracy, and its 95 % interval (Wilson)."""
        return proportion(self.hits(accuracy), len(self.accuracies))

    @property
    def best(self) -> float:
        return max(self.accuracies)


@dataclass(frozen=True)
class FoundNetwork:
    """A trained network that reached the accuracy.

    Args:
        structure: its widths and the weights it has.
        accuracy: on all points.
        seed: of its training.
        setting: its learning rate and schedule.
        values: its parameters as nested lists, by name.
    """

    structure: Structure
    accuracy: float
    seed: int
    setting: Setting
    values: Values

    def network(self) -> nn.Sequential:
        """The trained network, in evaluation mode."""
        model = zoo.spiral_block(self.structure.widths)
        model.load_state_dict({name: torch.tensor(value) for name, value in self.values.items()})
        return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class SparsestNetwork:
    """The sparsest network that a search found, and all that it tried.

    Args:
        accuracy: the accuracy to reach.
        found: the sparsest network; None if none reached the accuracy.
        dense: the sparsest network without gaps in its layers.
        tried: every structure with its runs, the smallest first.
        ended: the phases that were begun, and whether each came to its end within the budget.
        runs: how many runs were trained this time.
        seconds: how long this took.
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
        total = sum(len(tried.accuracies) for tried in self.tried)
        if self.found is None:
            return f"no network of {len(self.tried):,} tried, in {total:,} runs, reaches {self.accuracy:.4g}"
        structure = self.found.structure
        weights, biases = structure.weights, structure.size - structure.weights
        below = [tried for tried in self.tried if tried.structure.size < structure.size]
        # Records of earlier searches for a higher accuracy lack the values of networks that would do now.
        lost = sum(tried.hits(self.accuracy) > 0 for tried in below)
        smaller = f"; none of the {len(below):,} smaller ones that were tried does" if below else ""
        if lost:
            smaller = f"; {lost:,} of {len(below):,} smaller ones that were tried did, whose values were not kept"
        return (
            f"{weights} weights and {biases} biases reach {self.found.accuracy:.2%} of the points "
            f"(widths {', '.join(map(str, structure.widths))}){smaller}, in {total:,} runs"
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
                    "structure": tried.structure.name,
                    "weights": tried.structure.weights,
                    "size": tried.structure.size,
                    "runs": len(tried.accuracies),
                    "hits": tried.hits(self.accuracy),
                    "interval": tried.rate(self.accuracy)[1:],
                    "best": tried.best,
                }
                for tried in self.tried
            ],
        }


def _plain(network: FoundNetwork | None) -> dict[str, Any] | None:
    if network is None:
        return None
    structure = network.structure
    return {
        "structure": structure.name,
        "widths": list(structure.widths),
        "weights": structure.weights,
        "biases": structure.size - structure.weights,
        "accuracy": network.accuracy,
        "seed": network.seed,
        "setting": network.setting.name,
        "values": network.values,
    }
