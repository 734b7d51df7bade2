"""What killed and failed runs leave, and its removal: never what Tombola did not write, nor what is in use."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from tombola.errors import FileError
from tombola.files import DAMAGED, held, remove_empty
from tombola.files.atomic_files import leftovers
from tombola.studies.batch_training import TOGETHER, clear_together
from tombola.studies.run_folder import SETTINGS, STAGES, WRITTEN, RunFolder
from tombola.training import is_stage_file, remove_stages


@dataclass(frozen=True)
class Remain:
    """Something that can be removed.

    Args:
        path: the file or folder.
        what: it is.
        size: in bytes.
    """

    path: Path
    what: str
    size: int


def remains(root: Path, unfinished: bool = False) -> list[Remain]:
    """What killed and failed runs have left in a folder of runs.

    Args:
        root: the folder.
        unfinished: runs that did not end are among it.
    """
    found = []
    for path in sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink()):
        if TOGETHER.fullmatch(path.name):
            if unfinished and all(is_stage_file(own) or own.name == "members.json" for own in _files(path)):
                found.append(Remain(path, "networks that were training at once", _size(path)))
            continue
        if not os.path.exists(path / SETTINGS):
            continue
        folder = RunFolder(path)
        if not folder.is_a_run:
            continue
        if unfinished and not folder.is_finished:
            found.append(Remain(path, "a run that did not end", _size(path)))
            continue
        aside = [path / f"{name}{DAMAGED}" for name in WRITTEN]
        found += [Remain(own, "damaged, set aside", own.stat().st_size) for own in aside if own.is_file()]
        found += [Remain(own, "half-written", own.stat().st_size) for own in leftovers(path)]
        stages = path / STAGES
        if (path / "result.json").exists() and stages.is_dir() and not stages.is_symlink():
            found.append(Remain(stages, "checkpoints of a run that ended", _size(stages)))
    return found


def remove(remain: Remain) -> bool:
    """Remove it, unless somebody is at work there or it holds what Tombola did not write; gives whether it is gone."""
    path = remain.path
    with contextlib.suppress(FileError, OSError):
        if TOGETHER.fullmatch(path.name):
            with held(path):
                clear_together(path)
        elif path.name == STAGES:
            with RunFolder(path.parent).held():
                remove_stages(path)
        elif path.is_dir():
            RunFolder(path).renew()
        else:
            with RunFolder(path.parent).held():
                path.unlink(missing_ok=True)
    remove_empty(path)
    return not path.exists()


def _files(folder: Path) -> list[Path]:
    return [Path(own) / name for own, _, names in os.walk(folder) for name in names]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder) if path.exists())
