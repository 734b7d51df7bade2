"""Data files: finding them on this machine, or else downloading them."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tombola.errors import TombolaError
from tombola.files import content_of

LARGEST = 2**28
"""Bytes of a file of data, unpacked."""


@dataclass(frozen=True)
class Remote:
    """A file to download.

    Args:
        name: of the file.
        url: where it is.
        checksum: what it must have, as pooch writes it: "md5:…" or "sha256:…".
    """

    name: str
    url: str
    checksum: str


def locate(data: str, files: Sequence[Remote], folder: Path | None, usual: Sequence[Path], hint: str) -> list[Path]:
    """The files of a data set, downloaded if they are not on this machine.

    Args:
        data: the name of the data set.
        files: what it consists of.
        folder: where all files must be; None to look in the usual folders and then to download them.
        usual: folders where a distribution may have installed them.
        hint: what a user can do where they are missing, for the error.

    Returns:
        The paths of the files, in their order.

    Raises:
        TombolaError: if files are missing and cannot be downloaded.
    """
    for place in [folder] if folder else usual:
        paths = [place / file.name for file in files]
        missing = [path.name for path in paths if not path.exists()]
        if not missing:
            return paths
        if folder:
            raise TombolaError(f"{folder} has no {', '.join(missing)} of {data}; {hint}")
    return [_downloaded(data, file, hint) for file in files]


def unzipped(path: Path) -> bytes:
    """The content of a .gz file.

    Raises:
        TombolaError: if the file is cut short or damaged.
    """
    try:
        with gzip.open(io.BytesIO(content_of(path))) as file:
            content = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, str(error)) from error
    if len(content) > LARGEST:
        raise damaged(path, f"it unpacks to more than {LARGEST:,} bytes")
    return content


def unpacked(archive: bytes, names: Sequence[str]) -> list[bytes]:
    """The contents of files in an archive.

    Args:
        archive: the content of a .tar, .tar.gz or the like.
        names: of the files in it.

    Raises:
        ValueError: the archive is damaged, or a file is missing or larger than any.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            return [_member(opened, name) for name in names]
    except (tarfile.TarError, EOFError, OSError, KeyError, RecursionError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    if member is None:
        raise ValueError(f"{name} is no file")
    content = member.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"{name} has more than {LARGEST:,} bytes")
    return content


def damaged(path: Path, why: str) -> TombolaError:
    """The error that says why a file is damaged, to be raised."""
    return TombolaError(f"{path} is damaged ({why}); remove it and get it again")


def _downloaded(data: str, remote: Remote, hint: str) -> Path:
    """A file in the user's cache, downloaded the first time; pooch compares its checksum."""
    import pooch

    cache = pooch.os_cache("tombola") / data
    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(pooch.retrieve(remote.url, remote.checksum, remote.name, cache, downloader=_downloader(remote)))
    except ValueError as error:
        raise TombolaError(f"{remote.url} gave a file with another checksum than {remote.checksum}; {hint}") from error
    except OSError as error:
        reason = type(error).__name__
        raise TombolaError(f"{data} is not here and {remote.url} cannot be reached ({reason}); {hint}") from error


def _downloader(remote: Remote):
    import pooch

    return pooch.HTTPDownloader(progressbar=_Bar(remote.name), timeout=30)


class _Bar:
    """The progress bar that pooch expects, drawn by rich."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(name, total=None)
        self._total = 0

    @property
    def total(self) -> int:
        return self._total

    @total.setter
    def total(self, size: int) -> None:
        self._total = size
        self._progress.start()
        self._progress.update(self._task, total=size)

    def update(self, size: int) -> None:
        self._progress.advance(self._task, size)

    def reset(self) -> None:
        self._progress.reset(self._task, total=self._total)

    def close(self) -> None:
        self._progress.stop()
