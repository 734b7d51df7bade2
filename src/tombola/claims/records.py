"""Records of finished runs, one line of JSON each and no weights, from which work goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tombola.errors import TombolaError
from tombola.studies import Result
from tombola.tickets import write_atomically


def save_records(path: Path, results: Iterable[Result]) -> None:
    """Write results beside and rename; of the epochs' history what validation gave, the rest stays with the runs.

    A result that several arms measure stands there once, and then by its digest.
    """
    lines, known = [], set()
    for own in results:
        whole = replace(own, history=_validated(own)).to_json()
        lines.append(json.dumps({"digest": own.digest}) if own.digest in known else whole)
        known.add(own.digest)
    write_atomically(path, "".join(line + "\n" for line in lines))


def _validated(result: Result) -> tuple[dict[str, float], ...]:
    rows = [(row["epoch"], row["validation_metric"]) for row in result.history if "validation_metric" in row]
    return tuple({"epoch": epoch, "validation_metric": round(value, 4)} for epoch, value in rows)


def load_records(path: Path) -> list[Result]:
    """The results in a file, none if it is not there; TombolaError naming the line that is damaged."""
    results: list[Result] = []
    known: dict[str, Result] = {}
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else (), start=1):
        try:
            content = json.loads(line)
            own = known[content["digest"]] if content.keys() == {"digest"} else Result.of(content)
            known[own.digest] = own
            results.append(own)
        except (ValueError, TypeError, KeyError) as error:
            raise TombolaError(f"{path} is damaged in line {number} ({error}); remove that line") from error
    return results
