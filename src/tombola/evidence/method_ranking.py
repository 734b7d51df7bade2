"""Method against method: every pair over the same seeds, who was not told apart, and the order that follows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from string import ascii_lowercase

from tombola.errors import TombolaError
from tombola.evidence.looks import Looks
from tombola.evidence.measure import ACCURACY, Measure
from tombola.evidence.statistics import ONE_LOOK, Comparison, Outcome, grid_step, holm, paired_comparison

SIGNS = "a > b: all before it were shown to be better than all behind it; a ≈ b: these two are equivalent"
"""What the line of a ranking says."""


@dataclass(frozen=True)
class Place:
    """One method's place in a ranking.

    Args:
        method: what it is called.
        mean: its measure, mean over the seeds that all methods have.
        rank: its rank within a seed, mean over these seeds; 1 is best.
        cost: of search and training in dense epochs, mean over seeds; None where it is not known.
        groups: the letters of its groups; two methods that share a letter were not told apart.
    """

    method: str
    mean: float
    rank: float
    cost: float | None
    groups: str = ""


@dataclass(frozen=True)
class Pair:
    """Two methods compared.

    Args:
        method: the first, which has the better mean over the seeds that both have.
        comparison: it minus the second, which is what `against` names.
    """

    method: str
    comparison: Comparison


@dataclass(frozen=True)
class Ranking:
    """Methods in order, the best mean first.

    Args:
        density: at which they were compared; None over all that all of them have.
        equal_cost: whether the cheaper ones trained for longer, until all had cost the same.
        seeds: that all of them have.
        places: of each method, the best mean first.
        pairs: every two of them, over the seeds that both have, with Holm's correction for their number.
        groups: methods that were not told apart, each group as large as it can be.
        measure: what they are ranked by.
    """

    density: float | None
    equal_cost: bool
    seeds: tuple[int, ...]
    places: tuple[Place, ...]
    pairs: tuple[Pair, ...]
    groups: tuple[tuple[str, ...], ...]
    measure: Measure = ACCURACY

    @property
    def title(self) -> str:
        """What is ranked."""
        where = "over all densities" if self.density is None else f"at density {self.density:.4g}"
        return f"{self.measure.name} {where}{', at equal cost' if self.equal_cost else ''}"

    @property
    def summary(self) -> str:
        """The order in one line.

        `>` stands where all methods before it were shown to be better than all behind it, so that none shares a letter
        with one on the other side; ≈ between two that are equivalent; a comma claims nothing.
        """
        names = [place.method for place in self.places]
        signs = [self._sign(names[:count], names[count:]) for count in range(1, len(names))]
        return (
            f"{self.title}: {names[0]}{''.join(f'{sign} {name}' for sign, name in zip(signs, names[1:], strict=True))}"
        )

    def _sign(self, before: Sequence[str], behind: Sequence[str]) -> str:
        outcomes = {self._outcome(first, second) for first in before for second in behind}
        if outcomes == {"better"}:
            return " >"
        return " ≈" if self._outcome(before[-1], behind[0]) == "equivalent" else ","

    def _outcome(self, method: str, other: str) -> Outcome:
        """What is shown of a method against another that has a place behind it."""
        pair = next(own for own in self.pairs if {own.method, own.comparison.against} == {method, other})
        turned = pair.method != method and _told(pair.comparison)
        return "worse" if turned else pair.comparison.outcome

    @property
    def cheapest_equals(self) -> tuple[str, ...]:
        """The methods that no cheaper one, or equally cheap one, has a better mean than: those worth their cost."""
        worth, least = [], math.inf
        for place in self.places:
            if place.cost is not None and place.cost < least:
                worth.append(place.method)
                least = place.cost
        return tuple(worth)


def ranking(
    values: Mapping[str, Mapping[int, float]],
    costs: Mapping[str, float | None],
    margin: float,
    density: float | None = None,
    *,
    equal_cost: bool = False,
    measure: Measure = ACCURACY,
    looks: Looks = ONE_LOOK,
) -> Ranking:
    """Compare methods with each other, each pair over the seeds that both have.

    Every pair has its own paired t test, as the spreads of methods differ by much (a common variance, as in Tukey's
    test, would not hold). A ranking by ranks of means alone has no power with few seeds (Benavoli, Corani & Mangili,
    JMLR, 2016), so that ranks order and these tests group.

    Args:
        values: of each method, its measure by seed.
        costs: of each method, in dense epochs.
        margin: a smaller difference counts as none.
        density: at which they were compared; None over all.
        equal_cost: whether they trained until all had cost the same.
        measure: what is compared.
        looks: how often one looks.

    Raises:
        TombolaError: if there are fewer than two methods, or they have no seed in common.

    Examples:
        >>> values = {"imp": {0: 0.91, 1: 0.92, 2: 0.90}, "snip": {0: 0.81, 1: 0.83, 2: 0.80}}
        >>> ranking(values, {"imp": 160.0, "snip": 20.0}, margin=0.005, density=0.1).summary
        'accuracy at density 0.1: imp > snip'
    """
    seeds = tuple(sorted(set.intersection(*(set(by_seed) for by_seed in values.values())))) if len(values) > 1 else ()
    if not seeds:
        raise TombolaError("a ranking needs two methods with a seed in common; give more methods, or the same seeds")
    table = {method: [by_seed[seed] for seed in seeds] for method, by_seed in values.items()}
    every = [value for by_seed in values.values() for value in by_seed.values()]
    means = {method: math.fsum(row) / len(row) for method, row in table.items()}
    order = sorted(table, key=lambda method: -measure.sign * means[method])
    step = min(grid_step(every), margin) if measure.share else 0.0
    drawn = [_better_first(a, b, values, measure) for a, b in combinations(order, 2)]
    alone = [
        paired_comparison(mine, its, other, margin, measure=measure, looks=looks, step=step)
        for method, other in drawn
        for mine, its in [_over_shared(values[method], values[other])]
    ]
    pairs = tuple(Pair(method, own) for (method, _), own in zip(drawn, holm(alone, looks), strict=True))
    groups = _groups(order, {frozenset((p.method, p.comparison.against)) for p in pairs if _told(p.comparison)})
    letters = {
        method: "".join(_letter(place) for place, group in enumerate(groups) if method in group) for method in order
    }
    ranks = _mean_ranks(table, measure)
    places = tuple(Place(method, means[method], ranks[method], costs.get(method), letters[method]) for method in order)
    return Ranking(density, equal_cost, seeds, places, pairs, groups, measure)


def over_all(rankings: Sequence[Mapping[str, Mapping[int, float]]]) -> dict[str, dict[int, float]]:
    """Each method's mean over several densities, by seed; methods and seeds that all of them have.

    Examples:
        >>> over_all([{"imp": {0: 0.5}}, {"imp": {0: 1.0}, "snip": {0: 0.1}}])
        {'imp': {0: 0.75}}
    """
    methods = [name for name in rankings[0] if all(name in values for values in rankings)]
    common = {name: set.intersection(*(set(values[name]) for values in rankings)) for name in methods}
    return {
        name: {seed: math.fsum(values[name][seed] for values in rankings) / len(rankings) for seed in sorted(seeds)}
        for name, seeds in common.items()
    }


def _over_shared(mine: Mapping[int, float], its: Mapping[int, float]) -> tuple[list[float], list[float]]:
    """The numbers of two methods over the seeds that both have, in their order."""
    shared = sorted(mine.keys() & its.keys())
    return [mine[seed] for seed in shared], [its[seed] for seed in shared]


def _better_first(a: str, b: str, values: Mapping[str, Mapping[int, float]], measure: Measure) -> tuple[str, str]:
    """Two methods, the one with the better mean over the seeds that both have first; as they are if these agree."""
    mine, its = _over_shared(values[a], values[b])
    return (b, a) if measure.sign * (math.fsum(mine) - math.fsum(its)) < 0 else (a, b)


def _told(comparison: Comparison) -> bool:
    return comparison.outcome in ("better", "worse")


def _groups(order: Sequence[str], apart: set[frozenset[str]]) -> tuple[tuple[str, ...], ...]:
    """The largest sets of methods of which no two are told apart, by the place of their best."""
    found: list[tuple[str, ...]] = []

    def grow(group: tuple[str, ...], candidates: Sequence[str], done: Sequence[str]) -> None:
        """Bron & Kerbosch, 1973."""
        if not candidates and not done:
            found.append(tuple(sorted(group, key=order.index)))
        for place, method in enumerate(candidates):
            beside = [other for other in candidates[place + 1 :] if frozenset((method, other)) not in apart]
            before = [*done, *candidates[:place]]
            grow((*group, method), beside, [other for other in before if frozenset((method, other)) not in apart])

    grow((), list(order), [])
    return tuple(sorted(found, key=lambda group: [order.index(method) for method in group]))


def _letter(place: int) -> str:
    return ascii_lowercase[place] if place < 26 else f"({place + 1})"


def _mean_ranks(table: Mapping[str, Sequence[float]], measure: Measure) -> dict[str, float]:
    from scipy.stats import rankdata

    ranks = rankdata([[-measure.sign * value for value in row] for row in table.values()], axis=0)
    return {method: float(row.mean()) for method, row in zip(table, ranks, strict=True)}
