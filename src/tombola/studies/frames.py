"""Runs as rows of plain values, one a run or one an epoch, and as data frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from tombola.errors import TombolaError
from tombola.studies.result import Result
from tombola.studies.spec import CONDITIONS

Rows = Literal["runs", "epochs"]
WIDEST = 1000
"""Columns of a table of results."""
LEDGER = ("seconds", "flops", "dense_epochs")
"""What a row says of a cost."""
NAMES = ("run", "method", "control", "density", "seed")
"""What says which run a row of an epoch is of."""


def run_row(result: Result) -> dict[str, Any]:
    """One row of a run: what it is, what it came to, and what it took.

    The test metric and density are shares; `search_seconds` and the like are of the search, and 0 without one.
    `extra_epochs` is how much longer than its recipe says a run trains, as those at equal cost do.
    """
    said = result.settings.get("task")
    task = {f"task.{key}": str(value) for key, value in said.items()} if isinstance(said, Mapping) else {}
    longer = result.settings.get("extra_epochs")
    threads, device = (result.settings.get(name) for name in CONDITIONS)
    took = {f"training_{key}": result.training.get(key, 0) for key in (*LEDGER, "peak_memory")}
    found = {f"search_{key}": result.search.get(key, 0) for key in LEDGER}
    return {
        "run": result.digest,
        "method": result.method or "dense",
        "control": result.control,
        "density": result.density,
        "weight_density": result.weight_density,
        "seed": result.seed,
        "metric": result.metric,
        "loss": result.loss,
        "validation": result.validation,
        "epochs": result.epochs,
        "extra_epochs": longer if isinstance(longer, int | float) else 0.0,
        **took,
        **found,
        "together": result.together,
        "threads": threads if isinstance(threads, int) else None,
        "device": device if isinstance(device, str) else None,
        "source": result.source,
        **task,
    }


def epoch_rows(result: Result) -> Iterator[dict[str, Any]]:
    """One row an epoch of a run's training, after what the run is."""
    own = {key: value for key, value in run_row(result).items() if key in NAMES}
    return ({**own, **row} for row in result.history)


def rows_of(results: Sequence[Result], rows: Rows = "runs") -> list[dict[str, Any]]:
    """The rows of results, all with the same columns in the same order; None where a row has no such value.

    Raises:
        TombolaError: they have more columns than any results of Tombola's.
    """
    found = [run_row(one) for one in results] if rows == "runs" else [row for one in results for row in epoch_rows(one)]
    columns = dict.fromkeys(key for row in found for key in row)
    if len(columns) > WIDEST:
        raise TombolaError(f"these results have {len(columns):,} columns between them; list fewer of them at once")
    return [{key: row.get(key) for key in columns} for row in found]


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The columns of rows that have all the same."""
    return {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}


def dataframe(rows: Sequence[Mapping[str, Any]], backend: Literal["pandas", "polars", "pyarrow"] = "pandas") -> Any:
    """A data frame of rows.

    Args:
        rows: that have all the same columns.
        backend: the library that it is of.

    Raises:
        TombolaError: the library is not installed.
    """
    import narwhals

    try:
        return narwhals.from_dict(columns_of(rows), backend=backend).to_native()
    except ModuleNotFoundError as error:
        raise TombolaError(
            f"{backend} is not installed; pip install 'tombola[frames]', or another backend: pandas, polars, pyarrow"
        ) from error
