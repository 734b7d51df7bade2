"""What a ticket saves of the cost of dense training: by its training alone, and net of its search."""

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
    """The costs of one seed, each with the entries of `training.Cost`.

    Args:
        search: of the search for the ticket.
        training: of the ticket's training.
        dense: of dense training.
        alive: FLOPs of a step of the network without what is wholly dead, as a share of a dense step's; None where that
            is not known.
    """

    search: Ledger
    training: Ledger
    dense: Ledger
    alive: float | None = None


@dataclass(frozen=True)
class Savings:
    """Saved shares of the cost of dense training, as medians over seeds.

    A share is at most 1, below 0 where the ticket costs more, and None where a cost is not known.

    Args:
        subject: what the ticket or its method is called.
        density: the kept share of units, in (0, 1].
        seeds: the seeds, in order.
        training: the shares that the ticket's training alone saves, for each of `TRAINING`.
        net: the shares that search and training together save, for each of `NET`.
        could: the share of the FLOPs of each step that training would save as the smaller network, without the units
            that the ticket leaves wholly dead.
    """

    subject: str
    density: float
    seeds: tuple[int, ...]
    training: Mapping[str, float | None]
    net: Mapping[str, float | None]
    could: float | None = None


def savings(subject: str, density: float, spent: Mapping[int, Spent]) -> Savings:
    """What a ticket saves, from the costs of each seed.

    Args:
        subject: what the ticket or its method is called.
        density: the kept share of units, in (0, 1].
        spent: the costs by seed.

    Examples:
        >>> spent = Spent(search={"seconds": 3.0}, training={"seconds": 6.0}, dense={"seconds": 8.0})
        >>> saved = savings("snip", 0.1, {0: spent})
        >>> saved.training["seconds"], saved.net["seconds"], saved.training["energy"]
        (0.25, -0.125, None)
    """
    runs = [spent[seed] for seed in sorted(spent)]
    training = {
        key: _saved([(known_cost(run.training, key), known_cost(run.dense, key)) for run in runs]) for key in TRAINING
    }
    net = {key: _saved([(_search_and_training(run, key), known_cost(run.dense, key)) for run in runs]) for key in NET}
    could = _saved([(run.alive, 1.0) for run in runs])
    return Savings(subject, density, tuple(sorted(spent)), training, net, could)


def known_cost(ledger: Ledger, key: str) -> float | None:
    """An entry of a ledger; None where the ledger lacks it, or holds 0 because nothing measured it.

    Args:
        ledger: costs by name.
        key: the name of the cost.

    Examples:
        >>> known_cost({"seconds": 2.0, "energy": 0.0}, "energy") is None
        True
    """
    # Work that took time used energy and memory too, so that 0 means that nothing measured them.
    value = ledger.get(key)
    return None if value == 0 and key in ESTIMATED and ledger.get("seconds") else value


def _search_and_training(spent: Spent, key: str) -> float | None:
    search, training = known_cost(spent.search, key), known_cost(spent.training, key)
    return None if search is None or training is None else search + training


def _saved(pairs: Sequence[tuple[float | None, float | None]]) -> float | None:
    """The median over pairs (cost, cost of dense training) of the share saved."""
    shares = [1 - cost / dense for cost, dense in pairs if cost is not None and dense]
    return statistics.median(shares) if shares else None
