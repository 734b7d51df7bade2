"""What a ticket saves of dense training: alone, and net of the search for it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Ledger = Mapping[str, float]

ESTIMATED = ("energy", "carbon", "step_memory", "peak_memory")
TRAINING = ("seconds", "flops", "step_memory", "peak_memory", "energy", "carbon")
NET = ("seconds", "flops", "energy", "carbon")


@dataclass(frozen=True)
class Spent:
    """The costs of one seed, each as `training.Cost`: the ticket's search and training, and dense training."""

    search: Ledger
    training: Ledger
    dense: Ledger


@dataclass(frozen=True)
class Savings:
    """Shares of dense training saved, medians over seeds; below 0 where a ticket costs more, None where unknown.

    training: the ticket's training alone, by entry of the ledger; net: its search and training together.
    """

    subject: str
    density: float
    seeds: tuple[int, ...]
    training: Mapping[str, float | None]
    net: Mapping[str, float | None]


def savings(subject: str, density: float, spent: Mapping[int, Spent]) -> Savings:
    """What a ticket saves, from the costs of each seed.

    Examples:
        >>> once = Spent({"seconds": 3.0}, {"seconds": 6.0}, {"seconds": 8.0})
        >>> own = savings("snip", 0.1, {0: once})
        >>> own.training["seconds"], own.net["seconds"], own.training["energy"]
        (0.25, -0.125, None)
    """
    runs = [spent[seed] for seed in sorted(spent)]
    training = {
        key: _saved([(known_cost(own.training, key), known_cost(own.dense, key)) for own in runs]) for key in TRAINING
    }
    net = {key: _saved([(_whole(own, key), known_cost(own.dense, key)) for own in runs]) for key in NET}
    return Savings(subject, density, tuple(sorted(spent)), training, net)


def known_cost(ledger: Ledger, key: str) -> float | None:
    """An entry of a ledger; None where it is not there, or 0 because nobody metered or counted it."""
    value = ledger.get(key)
    return None if value == 0 and key in ESTIMATED and ledger.get("seconds") else value


def _whole(spent: Spent, key: str) -> float | None:
    search, training = known_cost(spent.search, key), known_cost(spent.training, key)
    return None if search is None or training is None else search + training


def _saved(pairs: Sequence[tuple[float | None, float | None]]) -> float | None:
    """The median over seeds of the share that the first saves of the second."""
    shares = [1 - own / dense for own, dense in pairs if own is not None and dense]
    return statistics.median(shares) if shares else None
