"""Methods of a study against each other: at each density, over all of them, and at equal cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tombola.evidence import Ranking, over_all, ranking
from tombola.studies.execution import execute
from tombola.studies.result import Result
from tombola.studies.seeds import Rows

Trained = Mapping[str, Mapping[int, Result]]
"""The results of methods by seed."""


def rankings(rows: Rows, equal_cost: bool = False) -> tuple[Ranking, ...]:
    """Rank the methods of a study.

    Args:
        rows: what ran.
        equal_cost: rank them at equal cost, too: cheaper ones then train for longer.

    Returns:
        A ranking for each density that two methods have, and over all these densities if there are several. They are by
        the results as they are, and after that at equal cost, where that is asked for.
    """
    found = _tickets(rows)
    made = _ranked(rows, found, equal=False)
    return made + (_ranked(rows, _at_equal_cost(rows, found), equal=True) if equal_cost else ())


def _tickets(rows: Rows) -> dict[float, dict[str, dict[int, Result]]]:
    """The tickets' results by density, method and seed, where two methods have the density."""
    found: dict[float, dict[str, dict[int, Result]]] = {}
    for place in range(len(rows.subjects)):
        tickets = rows.arms(place)["ticket"]
        by_method = found.setdefault(round(tickets[0].density, 9), {})
        by_method[tickets[0].method] = {result.seed: result for result in tickets}
    return {density: methods for density, methods in sorted(found.items(), reverse=True) if len(methods) > 1}


def _ranked(rows: Rows, found: Mapping[float, Trained], equal: bool) -> tuple[Ranking, ...]:
    verdicts = [rows.verdict(place) for place in range(len(rows.subjects))]
    measure, margin, looks = verdicts[0].measure, max(own.margin for own in verdicts), rows.plan.looks
    values = {
        density: {method: {seed: result.metric for seed, result in by_seed.items()} for method, by_seed in own.items()}
        for density, own in found.items()
    }
    costs = {density: {method: cost_of(by_seed) for method, by_seed in own.items()} for density, own in found.items()}
    made = [
        ranking(values[density], costs[density], margin, density, equal_cost=equal, measure=measure, looks=looks)
        for density in found
        if _comparable(values[density])
    ]
    whole = over_all(list(values.values())) if len(values) > 1 else {}
    if _comparable(whole):
        total = {name: _mean([costs[density][name] for density in found]) for name in whole}
        made.append(ranking(whole, total, margin, equal_cost=equal, measure=measure, looks=looks))
    return tuple(made)


def _at_equal_cost(rows: Rows, found: Mapping[float, Trained]) -> dict[float, dict[str, dict[int, Result]]]:
    """The same methods, each trained for as many more epochs as its dearest rival's search and training leave it.

    Their number is rounded down, so that none costs more than the dearest.
    """
    specs = {
        (round(first.density, 9), first.method, row["ticket"].seed): row["ticket"]
        for place in range(len(rows.subjects))
        for first in rows.arms(place)["ticket"][:1]
        for row in rows.specs[place]
    }
    longer = {}
    for density, methods in found.items():
        for method, by_seed in methods.items():
            for seed, result in by_seed.items():
                rivals = [own[seed] for own in methods.values() if seed in own]
                left = max(map(_cost, rivals)) - _cost(result)
                epoch = result.training.get("dense_epochs", 0.0) / max(result.epochs, 1)
                extra = math.floor(left / epoch + 1e-9) if epoch else 0
                longer[density, method, seed] = replace(specs[density, method, seed], extra_epochs=float(extra))
    engine = rows.engine
    results = execute(list(longer.values()), engine.store, engine.executor)
    made: dict[float, dict[str, dict[int, Result]]] = {}
    for (density, method, seed), result in zip(longer, results, strict=True):
        made.setdefault(density, {}).setdefault(method, {})[seed] = result
    return made


def cost_of(by_seed: Mapping[int, Result]) -> float | None:
    """The dense epochs of search and training, mean over seeds; None where they are not known."""
    return _mean([_cost(result) if "dense_epochs" in result.training else None for result in by_seed.values()])


def _cost(result: Result) -> float:
    return sum(ledger.get("dense_epochs", 0.0) for ledger in (result.search, result.training))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) and known else None


def _comparable(values: Mapping[str, Mapping[int, float]]) -> bool:
    """Whether two methods have a seed in common."""
    return len(values) > 1 and bool(set.intersection(*(set(by_seed) for by_seed in values.values())))
