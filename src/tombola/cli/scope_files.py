"""Densities of groups that `tombola sensitivity` has found, in place of words on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tombola.errors import TombolaError
from tombola.files import content_of, json_of

SENSITIVITY = "sensitivity.json"
"""The file in which `tombola sensitivity` writes its figures."""


def with_densities(words: Sequence[str]) -> list[str]:
    """The words, with pairs of a group and its density in place of a folder or file after `--scope`.

    Raises:
        TombolaError: the file holds no densities.
    """
    read: list[str] = []
    for before, word in pairwise(["", *words]):
        option, _, path = word.partition("=") if word.startswith("--scope=") else (before, "", word)
        file = Path(path) if path.endswith(".json") else Path(path, SENSITIVITY)
        if option == "--scope" and (file == Path(path) or file.is_file()):
            pairs = [text for name, share in _densities_in(file).items() for text in (name, repr(share))]
            read += pairs if before == "--scope" else ["--scope", *pairs]
        else:
            read.append(word)
    return read


def _densities_in(path: Path) -> dict[str, float]:
    try:
        content = json_of(content_of(path))
    except ValueError as error:
        raise TombolaError(f"{path} is damaged: {error}; run tombola sensitivity again") from error
    scope = content.get("scope") if isinstance(content, dict) else None
    is_whole = isinstance(scope, dict) and all(isinstance(share, int | float) for share in scope.values())
    if not scope or not is_whole:
        raise TombolaError(
            f"{path} holds no density for each group; tombola sensitivity writes them with --flops or --tolerance"
        )
    return {name: float(share) for name, share in scope.items()}
