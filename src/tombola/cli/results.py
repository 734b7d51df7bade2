"""tombola results FOLDER: list what ran; as a table, CSV, Parquet or JSON."""

from __future__ import annotations

import csv
import io
import math
import operator
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from tombola.cli.console import console, print_json
from tombola.cli.parse import read
from tombola.errors import TombolaError, unknown
from tombola.files import unwritable, write_atomically
from tombola.studies import Store, columns_of, rows_of

SHOWN = ("method", "control", "density", "seed", "metric", "loss", "epochs", "training_seconds")
"""The columns of the table, if none are asked for."""
RELATIONS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""How a formula begins, in wide letters too."""
CONDITION = re.compile(r"([\w.-]+)\s*(<=|>=|!=|=|<|>)\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class ResultsOptions:
    """List the finished runs in a folder: filter them, sort them, choose columns, and write them to a file.

    Folders of runs are the truth: to merge two studies, copy the folders of the runs of one into the other's.
    """

    folder: tyro.conf.Positional[Path]
    """folder of runs: the --out of a study or of any other command"""
    where: tuple[str, ...] = ()
    """conditions that all hold, as method=imp 'density<=0.1' control='' "method!=dense" """
    sort: tuple[str, ...] = ()
    """columns to sort by; --sort=-metric sorts from large to small"""
    columns: tuple[str, ...] = ()
    """columns to list; all in files, a few on the terminal, if none are given"""
    rows: Literal["runs", "epochs"] = "runs"
    """one row a run, or one an epoch of its training"""
    csv: Path | None = None
    """write a CSV file"""
    parquet: Path | None = None
    """write a Parquet file (pip install 'tombola[frames]')"""
    json: bool = False
    """print one line of JSON and nothing else, for programs"""
    device: str = "auto"
    """no effect here; accepted because every command accepts it"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    options = read(ResultsOptions, "results", words)
    if not options.folder.is_dir():
        raise TombolaError(f"there is no folder {options.folder}; give the --out of a study")
    rows = chosen(rows_of(Store(options.folder).results(), options.rows), options.where, options.sort)
    if not rows and not options.json:
        print(f"There is no finished run in {options.folder}{' with that' if options.where else ''}.")
        return 0
    all_columns = list(rows[0]) if rows else []
    for name in options.columns:
        if rows and name not in all_columns:
            raise unknown("column", name, all_columns)
    wanted = [{key: row[key] for key in options.columns or all_columns} for row in rows]
    written = []
    if options.csv is not None:
        write_atomically(options.csv, as_csv(wanted))
        written.append(options.csv)
    if options.parquet is not None:
        write_parquet(options.parquet, wanted)
        written.append(options.parquet)
    if options.json:
        print_json({"rows": wanted, "written": [str(path) for path in written]})
    elif written:
        print(f"{len(wanted)} rows: {', '.join(map(str, written))}")
    else:
        usual = SHOWN if options.rows == "runs" else all_columns
        columns = options.columns or [key for key in usual if key in all_columns]
        width = console().width if sys.stdout.isatty() and not options.columns else math.inf
        print(as_table(wanted, columns, width))
        print(f"{len(wanted)} {options.rows}")
    return 0


def chosen(rows: Sequence[Mapping[str, Any]], where: Sequence[str], sort: Sequence[str]) -> list[Mapping[str, Any]]:
    """The rows for which all conditions hold, sorted.

    Raises:
        TombolaError: a condition cannot be read, or names no column.

    Examples:
        >>> chosen([{"seed": 0}, {"seed": 1}, {"seed": 2}], ["seed>0"], ["-seed"])
        [{'seed': 2}, {'seed': 1}]
    """
    kept = list(rows)
    for condition in where:
        read = CONDITION.fullmatch(condition)
        if read is None:
            raise TombolaError(f"'{condition}' is no condition; give a column, a relation and a value, as density<=0.1")
        name, relation, value = read.groups()
        _check_column(name, rows)
        kept = [row for row in kept if _holds(row[name], relation, value)]
    for name in reversed(sort):
        column = name.removeprefix("-")
        _check_column(column, rows)
        there = [row for row in kept if row[column] is not None]
        lacking = [row for row in kept if row[column] is None]
        kept = sorted(there, key=lambda row: row[column], reverse=name.startswith("-")) + lacking
    return kept


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of a CSV file; what a spreadsheet would take for a formula is quoted as text."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writerow({key: _no_formula(key) for key in rows[0]})
        writer.writerows([{key: _no_formula(value) for key, value in row.items()} for row in rows])
    return text.getvalue()


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a Parquet file."""
    try:
        import pyarrow  # ty: ignore[import-not-found]
        from pyarrow import parquet  # ty: ignore[import-not-found]
    except ImportError as error:
        raise TombolaError("--parquet needs pyarrow; install it with pip install 'tombola[frames]'") from error
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(columns_of(rows)), sink)
    try:
        write_atomically(path, sink.getvalue().to_pybytes())
    except OSError as error:
        raise unwritable(path, error, "nothing that was there is lost") from error


def _check_column(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows and name not in rows[0]:
        raise unknown("column", name, rows[0])


def _holds(value: Any, relation: str, typed: str) -> bool:
    """Whether a row's value stands in a relation to a typed one, which is a number where the value is."""
    if value is None:
        return relation == "!="
    if isinstance(value, int | float):
        try:
            return bool(RELATIONS[relation](value, float(typed)))
        except ValueError as error:
            raise TombolaError(f"'{typed}' is no number, and the column holds numbers") from error
    return bool(RELATIONS[relation](str(value), typed.strip("'\"")))


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.lstrip().startswith(FORMULA) else value


def as_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], width: float = math.inf) -> str:
    """Rows for the terminal, numbers to the right; plain text, since a library's table takes a second per 1,000 rows.

    Args:
        rows: what is shown.
        columns: of it, the most important first.
        width: of the terminal; columns for which there is no room are named below.

    Examples:
        >>> print(as_table([{"method": "snip", "seed": 0}, {"method": "imp", "seed": 10}], ["method", "seed"]))
        method  seed
        ────────────
        snip       0
        imp       10
    """
    made: list[list[str]] = []
    taken, gone = 0, []
    for name in columns:
        cells = [name, *(_cell(row[name]) for row in rows)]
        widest = max(map(len, cells))
        if made and taken + widest > width:
            gone.append(name)
            continue
        taken += widest + 2
        to_right = all(isinstance(row[name], int | float | None) for row in rows)
        made.append([cell.rjust(widest) if to_right else cell.ljust(widest) for cell in cells])
    head, *lines = ("  ".join(cells).rstrip() for cells in zip(*made, strict=True))
    said = [f"No room here for: {', '.join(gone)}."] if gone else []
    return "\n".join([head, "─" * max(map(len, [head, *lines])), *lines, *said])


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
