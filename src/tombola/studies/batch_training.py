"""Training the small networks among a study's runs at once, before each run is carried out."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tombola.errors import DamagedError, FileError, TombolaError
from tombola.files import as_written, held, json_of, read_as, remove_empty, write_atomically
from tombola.studies.executor import Executor
from tombola.studies.prepared import Prepared
from tombola.studies.run_folder import RunFolder
from tombola.studies.store import Store
from tombola.training import Run, SampleFlops, Task, fingerprint, first_of, own_randomness, recipe_of, remove_stages
from tombola.training.ensemble import (
    Member,
    Unbatched,
    chunk_size,
    fit_members,
    groups_alike,
    pieces,
    stacking_obstacle,
)

MEMBERS = "members.json"
TOGETHER = re.compile(r"together-[0-9a-f]{12}")
"""What the folder is called in which networks train at once."""
SMALL = 2e7
"""FLOPs of a training step up to which a network is small: below, the calls take longer than the arithmetic."""


@dataclass(frozen=True)
class Waiting:
    """A run that is to be trained: its place among the runs, its folder, and what it is in an ensemble."""

    place: int
    folder: RunFolder
    member: Member
    trained: bool


def train_together_first(runs: Sequence[Prepared], executor: Executor) -> dict[int, str]:
    """Train small networks of one task at once; their runs' folders then hold the training as a finished stage.

    Which train at once follows from the order of the runs. What a killed call began, the same call ends: the networks
    that trained at once are noted, and each training goes on from its checkpoint.

    Returns:
        Why not, for the places of runs of small networks that cannot be.
    """
    alone: dict[int, str] = {}
    for places in _of_one_task(runs):
        first = runs[places[0]]
        task, store = first.spec.task, first.store
        if not _small(task, first.spec.seed):
            continue
        if why := stacking_obstacle(task, task.recipe, task.build(0), executor.device):
            alone |= dict.fromkeys(places, why)
            continue
        waiting = [_waiting(place, runs[place]) for place in places]
        for piece in _pieces(task, [one for one in waiting if one is not None], store, executor):
            try:
                _train(task, piece, store, executor)
            except Unbatched as error:
                alone |= dict.fromkeys((one.place for one in piece), str(error))
    return alone


def _of_one_task(runs: Sequence[Prepared]) -> list[list[int]]:
    """The places of runs that share a task with others."""
    places: dict[int, list[int]] = {}
    for place, run in enumerate(runs):
        places.setdefault(id(run.spec.task), []).append(place)
    return [own for own in places.values() if len(own) > 1]


def _small(task: Task, seed: int) -> bool:
    """Whether a training step takes few FLOPs; six a weight and sample at least, so that large networks are not run."""
    model = task.build(seed)
    if 6 * sum(p.numel() for p in model.parameters()) * task.recipe.batch > SMALL:
        return False
    with own_randomness(torch.device("cpu"), seed):
        batch = first_of(task.batches("train", seed, 0))
    return SampleFlops.measure(task, model, batch).training * task.recipe.batch <= SMALL


def _waiting(place: int, run: Prepared) -> Waiting | None:
    """A run as a member of an ensemble; None if it is finished, trains another task, or is in no state to say.

    What is wrong with a run, it says itself when it is carried out.
    """
    spec, folder = run.spec, run.folder
    try:
        anew = run.store.renews(folder)
        if not anew and folder.finished(run.settings) is not None:
            return None
        with folder.held() as lease:
            folder.begin(run.settings, anew=anew)
            if folder.result() is not None:
                return None
            arm = run.arm(lease)
    except TombolaError:
        return None
    if arm.task is not spec.task or (arm.ticket is not None and arm.ticket.removed):
        return None
    own: dict[str, Any] = {"epochs": recipe_of(arm.task, arm.ticket, arm.extra_epochs).epochs}
    own |= {"lr": spec.lr} if spec.lr is not None else {}
    end = run.run(None).file("train.end")
    member = Member(spec.seed, arm.ticket, spec.init_seed, own)
    return Waiting(place, folder, member, end is not None and end.path.exists())


def _pieces(task: Task, waiting: Sequence[Waiting], store: Store, executor: Executor) -> list[list[Waiting]]:
    """Which runs train at once: those that a killed call began with, as they were; the rest anew."""
    by_name = {one.folder.path.name: one for one in waiting}
    unfinished = {path.name for path in store.root.iterdir() if not RunFolder(path).is_finished}
    begun = []
    for folder in sorted(store.root.glob("together-*")):
        if not TOGETHER.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
            continue  # the user's
        names = _noted(folder)
        if not unfinished.intersection(names) or (store.fresh and by_name.keys() & set(names)):
            _remove(folder)
        elif by_name.keys() >= set(names):
            begun.append([by_name.pop(name) for name in names])
    rest = [one for one in by_name.values() if not one.trained]
    made = []
    for group in groups_alike([one.member.recipe_on(task) for one in rest]):
        if len(group) > 1:
            parts = pieces(group, chunk_size(task, rest[group[0]].member, executor.device))
            made += [[rest[place] for place in part] for part in parts if len(part) > 1]
    return begun + made


def _train(task: Task, piece: Sequence[Waiting], store: Store, executor: Executor) -> None:
    """Train these at once and leave each in its run's folder, but for those that diverge: they say so themselves."""
    names = [one.folder.path.name for one in piece]
    folder = store.root / f"together-{fingerprint({'members': names})[:12]}"
    with ExitStack() as holds:
        leases = [holds.enter_context(one.folder.held()) for one in piece]
        holds.callback(remove_empty, folder)
        run = Run(
            0, folder, executor.device, executor.bars, meter=executor.meter, lease=holds.enter_context(held(folder))
        )
        write_atomically(folder / MEMBERS, json.dumps(names))
        try:
            fitted = fit_members(task, [one.member for one in piece], run, "train")
        except Unbatched:
            _clear(folder)
            raise
        for one, lease, member in zip(piece, leases, fitted, strict=True):
            if not member.diverged:
                Run(folder=one.folder.path, lease=lease).keep("train", member.model, member.fit)
        _clear(folder)


def _noted(folder: Path) -> list[str]:
    """The networks that trained at once in a folder; none if that is not known, so that they train anew."""
    try:
        return as_written(folder / MEMBERS, lambda text: read_as(list[str], json_of(text)), "remove the folder") or []
    except DamagedError:
        return []


def _remove(folder: Path) -> None:
    """Remove what a killed call left of training networks at once, unless another process goes on with it."""
    with contextlib.suppress(FileError), held(folder):
        _clear(folder)
    remove_empty(folder)


def _clear(folder: Path) -> None:
    """Remove what was written for training networks at once, and nothing else."""
    (folder / MEMBERS).unlink(missing_ok=True)  # first: what a kill leaves then counts as begun by nobody
    remove_stages(folder / "stages")
