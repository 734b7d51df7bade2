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
"""The equal widths that a search tries first."""


def sparsest(search: Search, engine: Engine, train: Trainer | None = None) -> SparsestNetwork:
    """Search the sparsest network that learns the spiral, in two phases (Zhang & Papyan, ICML 2024).

    The first phase tries dense structures, the smallest first. The second removes single weights inside the widths
    found, more and more of them. Then the hit rates of the networks found are measured.

    A few equal widths come before all else, so that there is an answer at once. Each round tries every structure that
    may still be smaller than the best one, once at every setting, so the answer improves for as long as the search may
    take. The engine's store keeps all that was trained, for a search that goes on later: the answer never gets worse.

    Args:
        search: what to search for, and how long.
        engine: the store, and what carries out the training.
        train: trains a group of networks; None for `train_together`, one group on each core.
    """
    with searching(search, engine, train) as state:
        candidates = structured()
        state.rounds("begin", [Structure((width, width, width)) for width in LADDER], lambda size, best: True, seeds=1)
        state.rounds("widths", candidates, lambda size, best: size <= best)
        dense = state.best(row for row in state.rows() if Structure.parse(row.structure).supports is None)
        found = state.best(state.rows())
        if dense is None or found is None:
            return state.result(state.rows(), dense, found)
        inner = list(downwards(dense.structure.widths))
        state.rounds("weights", inner, lambda size, best: size < best, found.structure.size)
        found = state.best(state.rows()) or found
        state.rounds("rates", list(dict.fromkeys([dense.structure, found.structure])), lambda size, best: True)
        return state.result(state.rows(), dense, found)


def hit_rates(
    rounds: Mapping[Structure, int], search: Search, engine: Engine, train: Trainer | None = None
) -> SparsestNetwork:
    """Measure how often structures reach the accuracy.

    Args:
        rounds: how often each structure is trained at every setting.
        search: the accuracy, the settings and the budget.
        engine: the store, and what carries out the training.
        train: trains a group of networks; None for `train_together`, one group on each core.
    """
    with searching(search, engine, train) as state:
        for structure, seeds in rounds.items():
            state.rounds("rates", [structure], lambda size, best: True, seeds=seeds)
        rows = state.rows(rounds)
        return state.result(rows, None, state.best(rows))


def whole_search(name: str, search: Search, engine: Engine, train: Trainer | None = None) -> SparsestNetwork:
    """Carry out one of the study's searches in full: every structure of both phases once at each setting.

    Args:
        name: one of `WHOLE`.
        search: the recipe and the budget; its other fields are the study's. The next call goes on where time ran out.
        engine: the store, and what carries out the training.
        train: trains a group of networks; None for `train_together`, one group on each core.

    Raises:
        TombolaError: if the study has no search of this name.
    """
    if name not in WHOLE:
        raise unknown("search of the study", name, WHOLE)
    study = WHOLE[name]
    first = replace(search, accuracy=study.accuracy, seeds=1, init=0 if study.fixed else None, lrs=(0.05, 0.1))
    with searching(first, engine, train) as state:
        # Sorted by widths, so that the structures of a group are alike and share a small network.
        dense = sorted(study.structured, key=lambda structure: structure.widths)
        state.rounds("widths", dense, lambda size, best: True)
        rows = state.rows(dict.fromkeys(dense, 1))
        one = state.result(rows, None, state.best(rows))
    left = search.budget - one.seconds
    if left <= 0:
        return replace(one, ended={**one.ended, "weights": False})
    with searching(replace(first, lrs=study.lrs, budget=left), engine, train) as state:
        inner = list(study.refined)
        state.rounds("weights", inner, lambda size, best: True)
        rows = state.rows(dict.fromkeys(inner, 1))
        two = state.result(rows, None, state.best(rows))
    networks = [network for network in (one.found, two.found) if network is not None]
    return replace(
        two,
        found=min(networks, key=lambda network: network.structure.size, default=None),
        dense=one.found,
        tried=(*one.tried, *two.tried),
        ended={**one.ended, **two.ended},
        runs=one.runs + two.runs,
        seconds=one.seconds + two.seconds,
    )
