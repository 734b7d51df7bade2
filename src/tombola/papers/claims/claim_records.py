"""Records of finished runs, one line of JSON each and no weights, from which work goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tombola.files import parsed, text_of, write_atomically
from tombola.studies import Result

MEASURED = {"validation_metric": 4, "robust_pgd": 16}
"""What claims read of the epochs' history, and how many digits of it: a page shows the accuracy under attack."""


def save_records(path: Path, results: Iterable[Result]) -> None:
    """Write results beside and rename; of the epochs' history what claims read, the rest stays with the runs.

    A result that several arms measure stands there once, and then by its digest.
    """
    lines, known = [], set()
    for own in results:
        whole = replace(own, history=_measured(own)).to_json()
        lines.append(json.dumps({"digest": own.digest}) if own.digest in known else whole)
        known.add(own.digest)
    write_atomically(path, "".join(line + "\n" for line in lines))


def _measured(result: Result) -> tuple[dict[str, float], ...]:
    rows = [{key: round(row[key], digits) for key, digits in MEASURED.items() if key in row} for row in result.history]
    return tuple({"epoch": row["epoch"], **kept} for row, kept in zip(result.history, rows, strict=True) if kept)


def load_records(path: Path) -> list[Result]:
    """The results in a file, none if it is not there; TombolaError naming the line that is damaged."""
    known: dict[str, Result] = {}

    def result(content: dict[str, Any]) -> Result:
        own = known[content["digest"]] if content.keys() == {"digest"} else Result.of(content)
        known[own.digest] = own
        return own

    return list(parsed(path, text_of(path), result))
