"""Checkpoints: written beside and renamed, with a digest, read without pickle."""

from __future__ import annotations

import hashlib
import io
import os
import time
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tombola.errors import DamagedError, TombolaError
from tombola.files import DAMAGED, Lease, content_of, remove_empty, set_aside, write_atomically
from tombola.files.atomic_files import PART

MAGIC = b"tombola checkpoint 1\n"
FIRST_VERSION = b"PK\x03\x04"
"""How the first version's checkpoints begin, which have no digest."""
DIGEST = 32
"""Bytes of the digest that follows the magic, before the state itself."""
FIRST_NAMES = (".end.pt", ".going.pt", "chunk.pt")
"""How the names of the first version's checkpoints end: their content could be that of any file that torch saved."""


def is_stage_file(path: Path) -> bool:
    """Whether a file among a run's stages is one that Tombola wrote: a checkpoint, or what is left of one."""
    if path.is_symlink() or not path.is_file():
        return False
    if PART.fullmatch(path.name) or path.name.endswith(f".pt{DAMAGED}"):
        return True
    if path.suffix != ".pt":
        return False
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    return start == MAGIC or (start.startswith(FIRST_VERSION) and path.name.endswith(FIRST_NAMES))


def remove_stages(folder: Path) -> None:
    """Remove the checkpoints of a run's stages, and the folders that are empty then; what is not ours stays."""
    if folder.is_symlink():  # nothing of this run's
        return
    for path in sorted(folder.rglob("*"), reverse=True):  # What is in a folder comes before it.
        if is_stage_file(path):
            path.unlink(missing_ok=True)
        elif path.is_dir() and not path.is_symlink():
            remove_empty(path)
    remove_empty(folder)


def _is_plain(content: bytes) -> bool:
    """Whether an archive is as torch writes it, and does not grow when it is read."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            kept = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError):
        return False
    is_packed = any(own.compress_type != zipfile.ZIP_STORED for own in kept)
    return not is_packed and sum(own.file_size for own in kept) <= len(content)


class Checkpoint:
    """One file that holds a stage's state, written at most every few seconds, with a digest of it.

    Args:
        path: the file.
        every: seconds between two states that are due.
        lease: the hold on the run's folder, which is checked before each write; None where nobody else can come.
    """

    def __init__(self, path: Path, every: float = 5.0, lease: Lease | None = None) -> None:
        self.path = path
        self._every = every
        self._lease = lease
        self._written = time.monotonic()

    def due(self) -> bool:
        """Whether the last state was written so long ago that the next one is worth writing."""
        return time.monotonic() - self._written >= self._every

    def save(self, state: dict[str, Any]) -> None:
        """Write a state beside the last one and rename it there.

        Raises:
            LeaseLost: another process holds the folder by now.
        """
        if self._lease is not None:
            self._lease.check()
        buffer = io.BytesIO()
        torch.save(state | {"holder": self._lease.number if self._lease else 0}, buffer)
        content = buffer.getvalue()
        write_atomically(self.path, MAGIC + hashlib.blake2b(content, digest_size=DIGEST).digest() + content)
        self._written = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The saved state, on the CPU; None if there is none, or it is damaged: that is then set aside with a note."""
        try:
            data = content_of(self.path)
        except FileNotFoundError:
            return None
        except TombolaError as error:  # it is no file, or larger than the memory
            set_aside(self.path, DamagedError(str(error)))
            return None
        try:
            return self._state(data)
        except DamagedError as error:
            set_aside(self.path, error)
            return None

    @contextmanager
    def fitting(self) -> Generator[None]:
        """Put back a state that was loaded; one that is whole, but holds something else, is set aside.

        Raises:
            DamagedError: it is so. What the block has put back until then is no state to go on from.
        """
        try:
            yield
        except TombolaError:  # as of a network of another architecture, which the user can correct
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            aside = self.path.with_name(f"{self.path.name}{DAMAGED}")
            os.replace(self.path, aside)
            why = str(error).partition("\n")[0]
            raise DamagedError(
                f"the checkpoint {self.path} is not of what is trained here ({type(error).__name__}: {why}); it stands "
                f"aside as {aside.name}: run the same command again, and the stage is done again"
            ) from error

    def _state(self, data: bytes) -> dict[str, Any]:
        digest, content = data[len(MAGIC) : len(MAGIC) + DIGEST], data[len(MAGIC) + DIGEST :]
        damaged = DamagedError(f"the checkpoint {self.path} is damaged, or of another version")
        if not data.startswith(MAGIC) or hashlib.blake2b(content, digest_size=DIGEST).digest() != digest:
            raise damaged
        if not _is_plain(content):
            raise damaged
        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # Torch's readers raise all kinds, of a file whose digest someone has made right.
            raise damaged from error
        if not isinstance(state, dict):
            raise damaged
        return state

    def remove(self) -> None:
        """Forget the state."""
        self.path.unlink(missing_ok=True)
