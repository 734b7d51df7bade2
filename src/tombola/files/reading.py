"""Reading files that may be anything: none that never ends, and none that is larger than it can be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import psutil

from tombola.errors import TombolaError

USUAL = 2**28
"""Bytes up to which nobody asks how much memory there is."""


def content_of(path: str | Path, most: int | None = None) -> bytes:
    """What a file of data holds.

    Args:
        path: of the file.
        most: bytes that it may have; as many as the machine has memory if None.

    Raises:
        OSError: the file cannot be read.
        TombolaError: it is a pipe or a device, or too large.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        told = os.fstat(file.fileno())
        if not stat.S_ISREG(told.st_mode):
            raise TombolaError(f"{path} is a pipe or a device, and no file of data")
        if told.st_size > USUAL or most is not None:
            largest = psutil.virtual_memory().total if most is None else most
            if told.st_size > largest:
                what = "this machine has memory" if most is None else "any that Tombola writes"
                raise TombolaError(f"{path} has {told.st_size:,} bytes, more than {what}")
        return file.read()


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to is opened too, and does not keep its reader."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
