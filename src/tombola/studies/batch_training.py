"""Training the small networks of a study at once: which do is fixed before any run is held."""

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
from tombola.files import InUse, as_written, check_no_link, held, json_of, read_as, remove_empty, write_atomically
from tombola.studies.prepared import SEARCH, Prepared
from tombola.studies.run_folder import RunFolder
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
FOLDER = re.compile(r"[A-Za-z0-9._-]{1,200}")
"""The name of a run's folder."""
SMALL = 2e7
"""FLOPs of a training step up to which a network is small: below, the calls take longer than the arithmetic."""


@dataclass(frozen=True)
class Piece:
    """What one worker carries out, and no other meanwhile: one run, or small networks that train at once.

    Args:
        runs: in their order.
        places: of the runs among all that were asked for.
        alone: why the runs, though small, cannot train with others.
        is_small: its networks would train with more, were there more.
    """

    runs: tuple[Prepared, ...]
    places: tuple[int, ...]
    alone: str = ""
    is_small: bool = False


@dataclass(frozen=True)
class Waiting:
    """A run that is to be trained: its folder, and what it is in an ensemble."""

    folder: RunFolder
    member: Member
    trained: bool


def pieces_of(runs: Sequence[Prepared]) -> list[Piece]:
    """Share out runs: small networks of one task in chunks, in their order, and all else one by one.

    What is finished already changes nothing, so that every worker of a study finds the same pieces.
    """
    found = [
        Piece(tuple(runs[place] for place in chunk), tuple(chunk), why, is_small)
        for own in _of_one_task(runs)
        for chunk, why, is_small in _chunks(own, runs)
    ]
    return sorted(found, key=lambda piece: piece.places)


def _of_one_task(runs: Sequence[Prepared]) -> list[list[int]]:
    """The places of runs that share a task; a search is by itself."""
    places: dict[tuple[int, int], list[int]] = {}
    for place, run in enumerate(runs):
        places.setdefault((id(run.spec.task), place if run.spec.control == SEARCH else -1), []).append(place)
    return list(places.values())


def _chunks(places: Sequence[int], runs: Sequence[Prepared]) -> list[tuple[Sequence[int], str, bool]]:
    """The places of one task's runs in chunks that train at once, with why they do not, and whether they might."""
    first, alone = runs[places[0]], [[place] for place in places]
    task, device = first.spec.task, first.executor.device
    if len(places) == 1:
        return [(one, "", first.spec.control != SEARCH) for one in alone]
    if not _small(task, first.spec.seed):
        return [(one, "", False) for one in alone]
    if why := stacking_obstacle(task, task.recipe, task.build(0), device):
        return [(one, why, False) for one in alone]
    return [(chunk, "", True) for chunk in pieces(places, chunk_size(task, Member(first.spec.seed), device))]


def _small(task: Task, seed: int) -> bool:
    """Whether a training step takes few FLOPs; six a weight and sample at least, so that large networks are not run."""
    model = task.build(seed)
    if 6 * sum(p.numel() for p in model.parameters()) * task.recipe.batch > SMALL:
        return False
    with own_randomness(torch.device("cpu"), seed):
        batch = first_of(task.batches("train", seed, 0))
    return SampleFlops.measure(task, model, batch).training * task.recipe.batch <= SMALL


def train_together(piece: Piece) -> str:
    """Train the networks of a piece at once; their runs' folders then hold the training as a finished stage.

    What a killed call began, this one ends: the networks that trained at once are noted, and each training goes on from
    its checkpoint.

    Returns:
        Why not, if they cannot.

    Raises:
        InUse: another process has one of the runs.
    """
    first = piece.runs[0]
    unfinished = [run for run in piece.runs if run.folder.finished(run.settings, run.folder.result) is None]
    if not unfinished:  # then nothing need be written, nor can it be on a disk that can only be read
        return piece.alone
    names = [run.folder.path.name for run in piece.runs]
    gate, why = first.root / f"together-{fingerprint(names)[:12]}", piece.alone
    check_no_link(gate)
    with ExitStack() as holds:
        holds.callback(remove_empty, gate)
        holds.enter_context(held(gate))  # one worker at a time looks at the runs
        waiting = [one for run in unfinished if (one := _waiting(run)) is not None]
        for group in _groups(first.spec.task, waiting, first.root, gate):
            try:
                _train(group, first, gate)
            except Unbatched as error:
                why = str(error)
    return why


def _waiting(run: Prepared) -> Waiting | None:
    """A run as a member of an ensemble; None if it has just ended, trains another task, or is in no state to say.

    What is wrong with a run, it says itself when it is carried out.
    """
    spec, folder = run.spec, run.folder
    try:
        with folder.held() as lease:
            folder.begin(run.settings)
            if folder.result() is not None:
                return None
            arm = run.arm(run.subject()[0], lease)
    except InUse:
        raise
    except TombolaError:
        return None
    if arm.task is not spec.task or (arm.ticket is not None and arm.ticket.removed):
        return None
    own: dict[str, Any] = {"epochs": recipe_of(arm.task, arm.ticket, arm.extra_epochs).epochs}
    own |= {"lr": spec.lr} if spec.lr is not None else {}
    end = run.run(None).file("train.end")
    member = Member(spec.seed, arm.ticket, spec.init_seed, own)
    return Waiting(folder, member, end is not None and end.path.exists())


def _groups(task: Task, waiting: Sequence[Waiting], root: Path, gate: Path) -> list[list[Waiting]]:
    """Which runs train at once: those that a killed call began with, as they were; of the rest, those alike."""
    by_name = {one.folder.path.name: one for one in waiting}
    begun = []
    for folder in sorted(root.glob("together-*")):
        if not TOGETHER.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
            continue  # the user's
        names = _noted(folder)
        if all(RunFolder(root / name).is_finished for name in names):
            if folder != gate:
                _remove(folder)
        elif by_name.keys() >= set(names):
            begun.append([by_name.pop(name) for name in names])
    rest = [one for one in by_name.values() if not one.trained]
    alike = groups_alike([one.member.recipe_on(task) for one in rest])
    return begun + [[rest[place] for place in group] for group in alike if len(group) > 1]


def _train(group: Sequence[Waiting], first: Prepared, gate: Path) -> None:
    """Train these at once and leave each in its run's folder, but for those that diverge: they say so themselves."""
    names = [one.folder.path.name for one in group]
    folder, how = first.root / f"together-{fingerprint({'members': names})[:12]}", first.executor
    check_no_link(folder)
    with ExitStack() as holds:
        leases = [holds.enter_context(one.folder.held()) for one in group]
        holds.callback(remove_empty, folder)
        run = Run(0, folder, how.device, how.bars, meter=how.meter, lease=holds.enter_context(held(folder)))
        write_atomically(folder / MEMBERS, json.dumps(names))
        try:
            fitted = fit_members(first.spec.task, [one.member for one in group], run, "train")
        except Unbatched:
            clear_together(folder)
            raise
        for one, lease, member in zip(group, leases, fitted, strict=True):
            if not member.diverged:
                Run(folder=one.folder.path, lease=lease).keep("train", member.model, member.fit)
        clear_together(folder)


def _noted(folder: Path) -> list[str]:
    """The networks that trained at once in a folder; none if that is not known, so that they train anew."""
    try:
        names = as_written(folder / MEMBERS, lambda text: read_as(list[str], json_of(text)), "remove the folder") or []
        return [name for name in names if FOLDER.fullmatch(name)]  # no path from a file is followed
    except DamagedError:
        return []


def _remove(folder: Path) -> None:
    """Remove what a killed call left of training networks at once, unless another process goes on with it."""
    with contextlib.suppress(FileError), held(folder):
        clear_together(folder)
    remove_empty(folder)


def clear_together(folder: Path) -> None:
    """Remove what was written for training networks at once, and nothing else."""
    (folder / MEMBERS).unlink(missing_ok=True)  # first: what a kill leaves then counts as begun by nobody
    remove_stages(folder / "stages")
