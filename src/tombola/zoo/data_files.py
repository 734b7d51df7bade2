"""Data files: where they are looked for, and how they are fetched where they are not here."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tombola.errors import TombolaError


@dataclass(frozen=True)
class Remote:
    """A file to download: where it lies, and the checksum that it must have, as pooch writes it."""

    name: str
    url: str
    checksum: str


def locate(data: str, wanted: Sequence[Remote], folder: Path | None, usual: Sequence[Path], hint: str) -> list[Path]:
    """The files of a data set: in `folder` if one is given, else in the first usual one that is here, else downloaded.

    Raises TombolaError, with `hint`, where files are missing and cannot be fetched.
    """
    for place in [folder] if folder else usual:
        found = [place / remote.name for remote in wanted]
        missing = [path.name for path in found if not path.exists()]
        if not missing:
            return found
        if folder:
            raise TombolaError(f"{folder} has no {', '.join(missing)} of {data}; {hint}")
    return [_fetched(data, remote, hint) for remote in wanted]


def unzipped(path: Path) -> bytes:
    """The content of a .gz file; TombolaError if it is cut short or damaged."""
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path, why: str) -> TombolaError:
    return TombolaError(f"{path} is damaged ({why}); remove it and get it again")


def _fetched(data: str, remote: Remote, hint: str) -> Path:
    """A file in the user's cache, downloaded the first time and held against its checksum."""
    import pooch

    cache = pooch.os_cache("tombola") / data
    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(pooch.retrieve(remote.url, remote.checksum, remote.name, cache, downloader=_downloader(remote)))
    except ValueError as error:
        raise TombolaError(f"{remote.url} gave another file than the one known ({remote.checksum}); {hint}") from error
    except OSError as error:
        reason = type(error).__name__
        raise TombolaError(f"{data} is not here and {remote.url} cannot be reached ({reason}); {hint}") from error


def _downloader(remote: Remote):
    import pooch

    return pooch.HTTPDownloader(progressbar=_Bar(remote.name), timeout=30)


class _Bar:
    """What pooch asks of a progress bar, shown by rich."""

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
