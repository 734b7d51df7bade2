"""What is sent to another process: each task, with its data, is written once and read once by each process."""

from __future__ import annotations

import io
import os
import pickle
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cloudpickle

from tombola.studies.spec import RunSpec

KEPT = 4
"""Tasks that a process keeps in memory."""


@dataclass(frozen=True)
class Parcel:
    """A pickled value without its tasks.

    Args:
        content: of the value.
        folder: where the tasks are, for processes of this machine.
    """

    content: bytes
    folder: Path


def packed(value: Any, folder: Path) -> Parcel:
    """Pack a value for another process; functions and classes that no module has go with it.

    Args:
        value: tasks are taken out of the runs that it holds.
        folder: where each task is written, by its id here: they outlive the folder.
    """
    content = io.BytesIO()
    _Packer(content, folder).dump(value)
    return Parcel(content.getvalue(), folder)


def unpacked(parcel: Parcel) -> Any:
    """The value of a parcel."""
    return _Unpacker(io.BytesIO(parcel.content), parcel.folder).load()


class _Packer(cloudpickle.Pickler):
    def __init__(self, file: io.BytesIO, folder: Path) -> None:
        super().__init__(file)
        self._folder = folder
        self._tasks: set[int] = set()

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, RunSpec):
            self._tasks.add(id(obj.task))
        return super().reducer_override(obj)

    def persistent_id(self, obj: Any) -> str | None:
        if id(obj) not in self._tasks:
            return None
        path = self._folder / f"task-{id(obj)}.pickle"
        if not path.exists():
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                cloudpickle.dump(obj, file)
            os.replace(part, path)
        return path.name


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, folder: Path) -> None:
        super().__init__(file)
        self._folder = folder

    def persistent_load(self, pid: str) -> Any:
        return _task(self._folder / pid)


@lru_cache(maxsize=KEPT)
def _task(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)
