"""Writing files so that a kill or a full disk leaves the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tombola.errors import DamagedError, DamageWarning, FileError
from tombola.files.processes import HOST, is_alive
from tombola.files.reading import content_of

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""What a disk says that knows no links."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENFILE, errno.EMFILE)
"""What a disk says that has no room."""
DAMAGED = ".damaged"
"""What is added to the name of a damaged file that was set aside."""
PART = re.compile(r"\.(?P<name>.+)\.(?:(?P<host>[0-9a-f]{8})-)?(?P<process>\d+)(?:-\d+)?\.part")
"""What a file is called while it is written: the first version did not say on which host."""


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Write a file beside its place and rename it there; what was there stays if anything goes wrong.

    What earlier writers of the same file left, who were killed, is removed.

    Args:
        path: the file; its folder is made if it is not there.
        data: its content; text is written as UTF-8.

    Raises:
        FileError: the file cannot be written.
    """
    path = Path(path)
    with _beside(path, data) as part:
        os.replace(part, path)
    for leftover in leftovers(path.parent):
        if PART.fullmatch(leftover.name)["name"] == path.name:  # ty: ignore[not-subscriptable]
            leftover.unlink(missing_ok=True)


def write_once(path: str | Path, data: bytes | str) -> bool:
    """Write a file if there is none; of several writers at once exactly one succeeds, also on a network's disk.

    Args:
        path: the file; its folder is made if it is not there.
        data: its content; text is written as UTF-8.

    Returns:
        Whether this call wrote it.

    Raises:
        FileError: the file cannot be written.
    """
    path = Path(path)
    with _beside(path, data) as part:
        try:
            os.link(part, path)  # which fails where there is a file, unlike a rename
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            try:
                with open(path, "xb") as file:  # a disk without links: a reader may see it empty for a moment
                    file.write(part.read_bytes())
            except FileExistsError:
                return False
    return True


def append(path: str | Path, text: str) -> None:
    """Write at the end of a file, which is made if there is none: never through a link, into a pipe, or into a copy.

    Raises:
        FileError: the file cannot be written, or is none.
    """
    path = Path(path)
    try:
        if path.exists() and path.stat().st_nlink > 1 and not path.is_symlink():
            write_atomically(path, content_of(path))  # a backup may share it
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with open(os.open(path, flags, 0o666), "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise unwritable(path, error, "nothing that was there is lost") from error


def check_no_link(folder: Path) -> None:
    """Refuse a link in place of a folder that Tombola makes itself: what it leads to may be anything.

    Raises:
        FileError: it is one.
    """
    if folder.is_symlink():
        raise FileError(f"{folder} is a link, where Tombola writes into a folder of its own; remove the link")


@contextmanager
def _beside(path: Path, data: bytes | str) -> Generator[Path]:
    """A file with this content beside a path, gone afterwards if it is still there."""
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)  # of a process of the same number
        with open(part, "xb") as file:  # and never through a link that another user has put there
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        yield part
    except OSError as error:
        raise unwritable(path, error, "nothing that was there is lost") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def part_of(path: Path) -> Path:
    """What this thread of this process calls a file while it writes it."""
    return path.with_name(f".{path.name}.{HOST}-{os.getpid()}-{threading.get_native_id()}.part")


def leftovers(folder: Path) -> list[Path]:
    """What writers that were killed have left in a folder: never the file of a process that lives."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            named = PART.fullmatch(entry.name)
            if named and named["host"] in (None, HOST) and not is_alive(int(named["process"])):
                found.append(Path(entry.path))
    return found


def remove_empty(folder: Path) -> None:
    """Remove a folder if there is nothing in it."""
    with contextlib.suppress(OSError):  # there is something, or it is gone
        folder.rmdir()


def set_aside(path: Path, error: DamagedError) -> None:
    """Rename a damaged file out of the way, and warn that what it stood for is made again."""
    aside = path.with_name(f"{path.name}{DAMAGED}")
    os.replace(path, aside)
    what = str(error).partition(";")[0]
    warnings.warn(f"{what}; it stands aside as {aside.name}, and the work is done again", DamageWarning, stacklevel=3)


def unwritable(path: Path, error: OSError, kept: str) -> FileError:
    """The error for a file that could not be written, saying what is kept."""
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        mend = "let it be written to or "
    else:
        mend = "free some space or " if error.errno in FULL else ""
    return FileError(
        f"could not write {path}: {error.strerror or error}; {kept}, {mend}choose another folder and run the same "
        "command again"
    )
