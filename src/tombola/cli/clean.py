"""tombola clean FOLDER: remove what killed and failed runs have left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from tombola.cli.console import console, print_json
from tombola.cli.parse import read
from tombola.errors import TombolaError
from tombola.studies import remains, remove


@dataclass(frozen=True)
class CleanOptions:
    """Remove what killed and failed runs have left: damaged files that stand aside, checkpoints of runs that ended, and
    with --unfinished the folders of runs that have not. Without --yes, it only says what it would remove.
    """

    folder: tyro.conf.Positional[Path]
    """folder of runs: the --out of a study or of any other command"""
    unfinished: bool = False
    """remove runs that were killed or failed as well; they would begin anew"""
    yes: bool = False
    """remove it"""
    json: bool = False
    """print one line of JSON and nothing else, for programs"""
    device: str = "auto"
    """no effect here; accepted because every command accepts it"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    options = read(CleanOptions, "clean", words)
    if not options.folder.is_dir():
        raise TombolaError(f"there is no folder {options.folder}; give the --out of a study")
    found = remains(options.folder, options.unfinished)
    size = sum(own.size for own in found)
    removed = [own for own in found if remove(own)] if options.yes else []
    if options.json:
        print_json(
            {
                "found": [{"path": str(own.path), "what": own.what, "bytes": own.size} for own in found],
                "removed": [str(own.path) for own in removed],
            }
        )
        return 0
    terminal = console()
    for own in found:
        terminal.print(f"{own.path}: {own.what}, {own.size / 2**20:.1f} MiB", soft_wrap=True)
    if not found:
        print(f"There is nothing to remove in {options.folder}.")
    elif options.yes:
        kept = f"; {len(found) - len(removed)} are in use, and stay" if len(removed) < len(found) else ""
        print(f"Removed {len(removed)}{kept}.")
    else:
        print(f"{len(found)} to remove, {size / 2**20:.1f} MiB. Nothing was removed; --yes removes it.")
    return 0
