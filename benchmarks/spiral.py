"""The study of the Cubist Spiral: its two search phases and its pruning grid, extrapolated from a part of the runs."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

import torch

from benchmarks.measure import Figure
from tombola.papers.spiral import RECIPE, WHOLE, Structure, settings, spiral_task
from tombola.papers.spiral.search_state import TOGETHER
from tombola.papers.spiral.spiral_runs import inside, members
from tombola.training import Member, train_together

RUNS = int(os.environ.get("SPIRAL_RUNS", "5040"))
"""How many complete runs of the search are measured; SPIRAL_RUNS=480 python -m benchmarks spiral measures fewer."""

CORES, HOURS = 2, 24
TRAININGS = 13
"""How many trainings the study's nine methods take for one ticket each; iterative pruning takes five."""


@dataclass(frozen=True)
class Part:
    """One phase of one of the study's searches: how many runs it has, and at which learning rates."""

    name: str
    phase: int
    lrs: tuple[float, ...]

    @property
    def structures(self) -> list[Structure]:
        return listed(self.name, self.phase)

    @property
    def runs(self) -> int:
        return len(self.structures) * len(settings(self.lrs))

    def seconds(self, share: float) -> float:
        """Processor seconds of one run, from one group of runs, which begins after this share of the phase."""
        tried, structures = settings(self.lrs), self.structures
        count = min(TOGETHER // len(tried), len(structures))
        group = structures[int(share * (len(structures) - count)) :][:count]
        widths = inside(group)
        networks = [network for structure in group for network in members(structure, widths, 0, tried)]
        return timed(networks, widths) / len(networks)


def timed(networks: Sequence[Member], widths: tuple[int, int, int], epochs: int = RECIPE.epochs, of: int = 16) -> float:
    """Processor seconds of training these together on one thread, scaled from `epochs` to the study's."""
    torch.set_num_threads(1)
    task = spiral_task(widths, replace(RECIPE, epochs=epochs), of=of)
    # Warm up: the first training reads the data and sets up torch.
    train_together(replace(task, recipe=replace(task.recipe, epochs=1, batch=8192)), networks[:2])
    started = time.process_time()
    train_together(task, networks)
    return (time.process_time() - started) * RECIPE.epochs / epochs


@cache
def listed(name: str, phase: int) -> list[Structure]:
    study = WHOLE[name]
    return sorted(study.structured, key=lambda structure: structure.widths) if phase == 1 else list(study.refined)


def parts() -> list[Part]:
    """Both phases of the four searches; those from random initialisations share the first."""
    first = [Part(name, 1, (0.05, 0.1)) for name in WHOLE if name != "random-99.5"]
    return [*first, *(Part(name, 2, study.lrs) for name, study in WHOLE.items())]


def of_width(width: int) -> float:
    """Processor seconds of one dense training at a width of the pruning grid, from a few networks and one epoch."""
    networks = [Member(seed) for seed in range(8)]
    return timed(networks, (width, width, width), epochs=1, of=width) / len(networks)


def figures() -> Iterator[Figure]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(CORES, mp_context=context) as pool:
        yield searches(pool)
        yield grid(pool)


def searches(pool: ProcessPoolExecutor) -> Figure:
    """The hours of all searches, from groups spread over each phase in proportion to its runs, at least one of each."""
    phases = parts()
    total = sum(part.runs for part in phases)
    groups = {part: max(1, round(RUNS * part.runs / total / TOGETHER)) for part in phases}
    work = {
        part: [pool.submit(part.seconds, (place + 0.5) / count) for place in range(count)]
        for part, count in groups.items()
    }
    by_part = {part: sum(future.result() for future in futures) / len(futures) for part, futures in work.items()}
    hours = sum(part.runs * seconds for part, seconds in by_part.items()) / CORES / 3600
    measured = sum(min(TOGETHER, part.runs) * count for part, count in groups.items())
    a_minute = total / hours / 60 / CORES
    note = f"{hours:.1f} h for {total:,} runs, by {measured:,} runs measured; {a_minute:.0f} a minute a core"
    return Figure(f"the spiral's two search phases on {CORES} cores ÷ {HOURS} h", hours / HOURS, 1.0, note)


def tickets_of_width() -> dict[int, int]:
    """How many tickets of one method at one setting the pruning grid has, by the width of the network."""
    cells: dict[int, int] = {}
    for pruned in {study.pruned for study in WHOLE.values()}:
        for width, _ in pruned.cells:
            cells[width] = cells.get(width, 0) + pruned.repeats
    return cells


def grid(pool: ProcessPoolExecutor) -> Figure:
    """The hours of every training of the pruning methods, without the time of their scores."""
    cells = tickets_of_width()
    by_width = dict(zip(cells, pool.map(of_width, cells), strict=True))
    # Nine settings; `TRAININGS` counts all nine methods.
    seconds = sum(9 * TRAININGS * count * by_width[width] for width, count in cells.items())
    wide = 9 * TRAININGS * sum(count * by_width[width] for width, count in cells.items() if width > 16)
    tickets = 9 * 9 * sum(cells.values())
    note = f"{tickets:,} tickets; {wide / seconds:.0%} of it beyond width 16; by an epoch of 8 networks a width"
    hours = seconds / CORES / 3600
    return Figure(f"the spiral's pruning grid on {CORES} cores, in hours, scores not counted", hours, None, note)
