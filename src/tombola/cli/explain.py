"""Why a ticket does not win: is training stable from where it starts, and from where is it?"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tombola.connectivity import Point, Stability, stability
from tombola.connectivity.copies import OWN_START
from tombola.errors import TombolaError
from tombola.files import held
from tombola.methods import Method, OneShot
from tombola.registry import METHODS
from tombola.studies import Engine, search, task_words
from tombola.tickets import Seed, Ticket
from tombola.training import Run, Task, bars


@dataclass(frozen=True)
class Explanation:
    """What the stability of training says of a ticket that does not win.

    Args:
        found: the points that were measured.
        rewound: a command that finds a ticket at the earliest stable point; empty where rewinding is no answer.
    """

    found: Stability
    rewound: str

    def __str__(self) -> str:
        if self.found.points[0].stable:
            return f"{self.found} So instability is not why it does not win."
        return f"{self.found} Find one that is rewound to there: {self.rewound}" if self.rewound else str(self.found)

    def to_json(self) -> dict[str, Any]:
        """What programs are told."""
        points = [
            {"at": point.at, "step": point.step, "barrier": point.barrier, "stable": point.stable}
            for point in self.found.points
        ]
        said = {"sentence": str(self), "points": points, "rewound": self.rewound or None}
        return {"explanation": said | {"cost": asdict(self.found.cost)}}


def explain(
    task: Task, subject: Ticket | Method, name: str, words: Sequence[str], engine: Engine, folder: Path, show: bool
) -> Explanation:
    """Measure whether training is stable from where a ticket starts, and look for the earliest point where it is.

    Args:
        task: what it learns.
        subject: the ticket, or the method whose first seed's ticket is taken.
        name: of the method or ticket, as it was typed.
        words: the options that were typed.
        engine: where the method's finished search is read.
        folder: keeps the trainings.
        show: whether to show bars.
    """
    ticket = subject if isinstance(subject, Ticket) else search(task, subject, 0, engine.store, engine.executor)[0]
    reachable = isinstance(ticket.start, Seed) or ticket.provenance.seed is not None
    at_first = isinstance(ticket.start, Seed)
    with bars(show) as progress, held(folder) as lease:
        run = Run(0, folder, engine.executor.device, progress, lease=lease)
        found = stability(task, ticket, at=["0it" if at_first else OWN_START], earliest=reachable, orders=3, run=run)
    advised, rewound = found.earliest, ""
    if not found.points[0].stable and advised is not None and advised.step > 0:
        options = [*_typed(subject, words), *words]
        rewound = _command(_that_rewinds(subject, name, f"{advised.step}it"), options, advised)
    return Explanation(found, rewound)


def _that_rewinds(subject: Ticket | Method, name: str, point: str) -> str:
    """The method that finds such a ticket at a point: its own if it rewinds to steps, else iterative pruning."""
    if isinstance(subject, Ticket):
        name = subject.provenance.method
        subject = METHODS[name] if name in METHODS else OneShot()
    try:
        replace(subject, rewind=point)  # ty: ignore[invalid-argument-type]
    except (TypeError, TombolaError):
        return "imp"
    return name


def _typed(subject: Ticket | Method, words: Sequence[str]) -> list[str]:
    """What the command must say that was not typed: the density, and of a ticket the task that its file names."""
    said = {"density": f"{subject.density:.4g}"}
    said |= subject.provenance.task if isinstance(subject, Ticket) else {}
    given = {word.partition("=")[0].removeprefix("--") for word in words if word.startswith("--")}
    return task_words({name: value for name, value in said.items() if name not in given})


def _command(name: str, words: Sequence[str], earliest: Point) -> str:
    """The command that finds the ticket anew, rewound to a point; options of the check alone are left out."""
    kept, options = [], list(words)
    while options:
        word = options.pop(0)
        values = []
        while options and not options[0].startswith("--"):
            values.append(options.pop(0))
        if word.startswith(("--density", "--data", "--model", "--width", "--recipe.", "--image-size", "--task-")):
            kept += [word, *values]
    return shlex.join(["tombola", "find", name, "--rewind", f"{earliest.step}it", *kept])
