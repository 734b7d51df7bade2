"""Writing files so that a kill or a full disk leaves the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tombola.errors import FileError


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write `data` beside `path` and rename it there; what was at `path` stays if anything goes wrong."""
    path = Path(path)
    content = data.encode() if isinstance(data, str) else data
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise unwritable(path, error, "nothing that was there is lost") from error


def unwritable(path: Path, error: OSError, kept: str) -> FileError:
    """The error for a file that could not be written, saying what is kept."""
    return FileError(
        f"could not write {path}: {error.strerror or error}; {kept}, free some space or choose another folder and run "
        "the same command again"
    )
