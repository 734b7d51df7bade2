"""What goes with what: every score at every granularity and schedule, tried on a small task."""

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
    "one shot": lambda score, own: OneShot(density=0.5, score=score, granularity=own, floor=1),
    "rounds": lambda score, own: OneShot(density=0.5, score=score, granularity=own, rounds=3, floor=1),
    "iterative": lambda score, own: Iterative(density=0.5, score=score, granularity=own, count=2, floor=1),
}


def matrix() -> str:
    """A Markdown table: score by granularity and schedule, `yes` where a search works, else why it refuses."""
    columns = [(own, schedule) for own in GRANULARITIES for schedule in SCHEDULES]
    head = ["score", *(f"{own.name}, {schedule}" for own, schedule in columns)]
    rows = [
        [name, *(_tried(SCHEDULES[schedule](score, own)) for own, schedule in columns)]
        for name, score in SCORES.only(unit="weight").items()
        if SCORES.entry(name).needs != "training"
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _tried(method: Method) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TieWarning)
        try:
            find(toy_task(epochs=1), method, progress=False)
        except TombolaError as error:
            return str(error)
    return "yes"
