"""Methods of a study against each other: at each density, over all of them, and at equal cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tombola.evidence import ONE_LOOK, Looks, Ranking, Verdict, over_all, ranking
from tombola.studies.plan import Arms
from tombola.studies.result import Result
from tombola.studies.spec import RunSpec

Tickets = Sequence[Sequence[Result]]
"""The results of each subject's tickets, in the order of their seeds."""
Rows = Sequence[Sequence[tuple[Arms, Mapping[str, Result]]]]
"""Of each subject, seed by seed, its runs by arm and what they came to."""
DENSE = "dense"
"""What the dense network is called in reports, and no subject beside it."""


@dataclass(frozen=True)
class Longer:
    """One row of a ranking at equal cost: what is trained for longer.

    Args:
        method: what it is called; the dense network too has a row.
        density: of the ranking that it is in.
        specs: its runs, one for each seed.
    """

    method: str
    density: float
    specs: tuple[RunSpec, ...]

    def named(self, results: Iterable[Result]) -> list[Result]:
        """What the runs came to, as rows of the ranking."""
        return [replace(result, method=self.method, density=self.density) for result in results]


def rankings(
    verdicts: Sequence[Verdict], tickets: Tickets, looks: Looks = ONE_LOOK, equal_cost: bool = False
) -> tuple[Ranking, ...]:
    """Rank the methods of a study.

    Args:
        verdicts: on each subject, which say what is measured, and what difference counts as none.
        tickets: the results of each subject's tickets.
        looks: how often one looks.
        equal_cost: whether the cheaper ones trained for longer, until all had cost the same.

    Returns:
        A ranking for each density that two methods have, and over all these densities if there are several.
    """
    found = _by_density(tickets)
    if not found:
        return ()
    measure, margin = verdicts[0].measure, max(own.margin for own in verdicts)
    values = {
        density: {method: {result.seed: result.metric for result in own} for method, own in methods.items()}
        for density, methods in found.items()
    }
    costs = {
        density: {method: _mean_cost(own) for method, own in methods.items()} for density, methods in found.items()
    }
    made = [
        ranking(values[density], costs[density], margin, density, equal_cost=equal_cost, measure=measure, looks=looks)
        for density in found
        if _comparable(values[density])
    ]
    whole = over_all(list(values.values())) if len(values) > 1 else {}
    if _comparable(whole):
        total = {name: _mean([costs[density][name] for density in found]) for name in whole}
        made.append(ranking(whole, total, margin, equal_cost=equal_cost, measure=measure, looks=looks))
    return tuple(made)


def longer(rows: Rows) -> list[Longer]:
    """The runs of the same tickets, and of dense, each for as many more epochs as the dearest rival leaves it.

    Their number is rounded down, so that none costs more than the dearest: the largest cost of a search and training.
    The dense network is ranked like a method, since the same paired test tells whether a ticket is better than dense
    that trains for as long. A subject without a rival of its density has no runs.

    Args:
        rows: the runs of all subjects, and what they came to.
    """
    tickets = [[made["ticket"] for _, made in own] for own in rows]
    made: list[Longer] = []
    for density, methods in _by_density(tickets).items():
        ranked = [own for own in rows if _density(own[0][1]["ticket"]) == density]
        every = {
            seed: (arms, found) for own in reversed(ranked) for arms, found in own for seed in [arms["ticket"].seed]
        }
        groups = [(own[0][1]["ticket"].method, "ticket", own) for own in ranked] + [(DENSE, DENSE, every.values())]
        dearest = max(_cost(result) for own in methods.values() for result in own)
        for name, arm, own in groups:
            specs = (_longer(arms[arm], found[arm], dearest) for arms, found in own if arm in arms)
            made.append(Longer(name, density, tuple(specs)))
    return made


def _longer(spec: RunSpec, result: Result, cost: float) -> RunSpec:
    """The run for as many more epochs as a cost in dense epochs leaves it."""
    return replace(spec, extra_epochs=spec.extra_epochs + _epochs_for(max(0.0, cost - _cost(result)), result))


def _by_density(tickets: Tickets) -> dict[float, dict[str, Sequence[Result]]]:
    """The tickets' results by density and method, where two methods have the density."""
    found: dict[float, dict[str, Sequence[Result]]] = {}
    for own in tickets:
        found.setdefault(_density(own[0]), {})[own[0].method] = own
    return {density: methods for density, methods in sorted(found.items(), reverse=True) if len(methods) > 1}


def _density(result: Result) -> float:
    return round(result.density, 9)


def _epochs_for(cost: float, result: Result) -> int:
    """How many whole epochs of a ticket's training a cost in dense epochs pays for."""
    epoch = result.training.get("dense_epochs", 0.0) / max(result.epochs, 1)
    return math.floor(cost / epoch + 1e-9) if epoch else 0


def _mean_cost(results: Sequence[Result]) -> float | None:
    """The dense epochs of search and training, mean over seeds; None where they are not known."""
    return _mean([_cost(result) if "dense_epochs" in result.training else None for result in results])


def _cost(result: Result) -> float:
    return sum(ledger.get("dense_epochs", 0.0) for ledger in (result.search, result.training))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) and known else None


def _comparable(values: Mapping[str, Mapping[int, float]]) -> bool:
    """Whether all methods have a seed in common."""
    return len(values) > 1 and bool(set.intersection(*(set(by_seed) for by_seed in values.values())))
