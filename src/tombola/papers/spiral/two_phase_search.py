"""The two-phase search for the sparsest network that learns the spiral (Zhang & Papyan, ICML 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tombola.errors import unknown
from tombola.papers.spiral.search_outcome import SparsestNetwork
from tombola.papers.spiral.search_state import Search, searching
from tombola.papers.spiral.spiral_runs import Trainer
from tombola.papers.spiral.structures import WHOLE, Structure, downwards, structured
from tombola.studies.executor import Engine

LADDER = (3, 4, 5, 6, 8, 16)


def sparsest(search: Search, engine: Engine, train: Trainer | None = None) -> SparsestNetwork:
    """Widths first, the smallest first; then single weights inside the widths found, ever fewer; then hit rates.

    A few equal widths come before all, so that there is an answer at once. A round tries each structure that may still
    be a better one once at every setting, and what reaches the accuracy ends all that costs more: the answer gets
    better for as long as the search may take. What was trained is kept in the engine's store and counts when the search
    goes on, inside whatever widths it was found: the answer never gets worse.
    """
    with searching(search, engine, train) as own:
        candidates = structured()
        own.rounds("begin", [Structure((width, width, width)) for width in LADDER], lambda size, best: True, seeds=1)
        own.rounds("widths", candidates, lambda size, best: size <= best)
        dense = own.best(row for row in own.rows() if Structure.parse(row.structure).supports is None)
        found = own.best(own.rows())
        if dense is None or found is None:
            return own.result(own.rows(), dense, found)
        inner = list(downwards(dense.structure.widths))
        own.rounds("weights", inner, lambda size, best: size < best, found.structure.size)
        found = own.best(own.rows()) or found
        own.rounds("rates", list(dict.fromkeys([dense.structure, found.structure])), lambda size, best: True)
        return own.result(own.rows(), dense, found)


def hit_rates(
    rounds: Mapping[Structure, int], search: Search, engine: Engine, train: Trainer | None = None
) -> SparsestNetwork:
    """How often each structure reaches the accuracy when it is trained so many times at every setting."""
    with searching(search, engine, train) as own:
        for structure, seeds in rounds.items():
            own.rounds("rates", [structure], lambda size, best: True, seeds=seeds)
        rows = own.rows(rounds)
        return own.result(rows, None, own.best(rows))


def whole_search(name: str, search: Search, engine: Engine, train: Trainer | None = None) -> SparsestNetwork:
    """One of the study's own searches in full: every structure of both phases once at its settings, with no stopping.

    search: the recipe and the budget; what was not reached in it is left to the next time.
    """
    if name not in WHOLE:
        raise unknown("search of the study", name, WHOLE)
    own = WHOLE[name]
    first = replace(search, accuracy=own.accuracy, seeds=1, init=0 if own.fixed else None, lrs=(0.05, 0.1))
    with searching(first, engine, train) as going:
        alike = sorted(own.structured, key=lambda each: each.widths)
        going.rounds("widths", alike, lambda size, best: True)
        rows = going.rows(dict.fromkeys(alike, 1))
        one = going.result(rows, None, going.best(rows))
    left = search.budget - one.seconds
    if left <= 0:
        return replace(one, ended={**one.ended, "weights": False})
    with searching(replace(first, lrs=own.lrs, budget=left), engine, train) as going:
        inner = list(own.refined)
        going.rounds("weights", inner, lambda size, best: True)
        rows = going.rows(dict.fromkeys(inner, 1))
        two = going.result(rows, None, going.best(rows))
    found = [each for each in (one.found, two.found) if each is not None]
    return replace(
        two,
        found=min(found, key=lambda each: each.structure.size, default=None),
        dense=one.found,
        tried=(*one.tried, *two.tried),
        ended={**one.ended, **two.ended},
        runs=one.runs + two.runs,
        seconds=one.seconds + two.seconds,
    )
