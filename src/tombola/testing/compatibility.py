"""What goes with what: each score is tried at each granularity and schedule on a small task."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from tombola.errors import TombolaError
from tombola.methods import Iterative, Method, OneShot, find
from tombola.registry import SCORES
from tombola.scores import Score
from tombola.structure import NM, Channels, Granularity, Weights
from tombola.testing.toys import toy_task
from tombola.tickets import TieWarning

GRANULARITIES: tuple[Granularity, ...] = (Weights(), NM(), Channels())
SCHEDULES: dict[str, Callable[[Score, Granularity], Method]] = {
    "one shot": lambda score, units: OneShot(density=0.5, score=score, granularity=units, floor=1),
    "rounds": lambda score, units: OneShot(density=0.5, score=score, granularity=units, rounds=3, floor=1),
    "iterative": lambda score, units: Iterative(density=0.5, score=score, granularity=units, count=2, floor=1),
}


def matrix() -> str:
    """Which scores work at which granularity and schedule, found by trying.

    Returns:
        A Markdown table with a row for each score of weights, and a column for each granularity and schedule; `yes`
        where a search works, else why it refuses.
    """
    columns = [(granularity, schedule) for granularity in GRANULARITIES for schedule in SCHEDULES]
    head = ["score", *(f"{granularity.name}, {schedule}" for granularity, schedule in columns)]
    rows = [
        [name, *(_outcome(SCHEDULES[schedule](score, granularity)) for granularity, schedule in columns)]
        for name, score in SCORES.only(unit="weight").items()
        if SCORES.entry(name).needs != "training"
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _outcome(method: Method) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TieWarning)
        try:
            find(toy_task(epochs=1), method, progress=False)
        except TombolaError as error:
            return str(error)
    return "yes"
