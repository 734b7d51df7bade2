"""Texts and labels of your own, from a CSV or TSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.files import content_of
from tombola.zoo.normalisation import Data
from tombola.zoo.word_pieces import word_pieces

TEXTS = ("text", "sentence", "sentence1", "text1", "question", "question1", "review")
SECONDS = ("text2", "sentence2", "question2")
LABELS = ("label", "class", "target", "score")
SPLITS = ("train", "validation", "test")
TEST_EVERY = 5


def text_file(path: Path | str, *, tokenizer: Path | None = None, length: int | None = None) -> Data:
    """The word pieces and labels of a file: one row a text, below a line with the names of the columns.

    The columns are `text` and `label`; `text2` as well for pairs, and `split` (train, validation, test) where you do
    not want every fifth row to be the test split. Labels are words or whole numbers, which become classes in their
    order, or numbers with a point, which the network is to give.

    Args:
        path: the file, with commas; with tabs if its name ends in .tsv.
        tokenizer: a folder with a tokenizer's files; that of MiniLM if None.
        length: word pieces of each text; those of the longest if None, at most 128.

    Returns:
        The splits, each (pieces int64, classes int64 or numbers float32 (n, 1)).

    Raises:
        TombolaError: if there is no such file, or a column or a label is missing.
    """
    path = Path(path)
    rows = _rows(path)
    first, second, label, split = (_column(rows[0], names) for names in (TEXTS, SECONDS, LABELS, ("split",)))
    if not first or not label:
        has = ", ".join(map(str, rows[0]))
        raise TombolaError(f"{path} has the columns {has}; it needs one called text and one called label")
    for number, row in enumerate(rows, 2):
        if empty := next(
            (name for name in (first, second, label, split) if name and not (row[name] or "").strip()), None
        ):
            raise TombolaError(f"{path} has nothing in column '{empty}' of row {number}; fill it in or remove the row")
    pairs = [row[second] for row in rows] if second else None
    pieces = word_pieces([row[first] for row in rows], pairs, tokenizer=tokenizer, length=length)
    targets = targets_of([row[label].strip() for row in rows], str(path))
    return _splits(pieces, targets, [row[split].strip() for row in rows] if split else None, path)


def targets_of(labels: Sequence[str], where: str) -> Tensor:
    """Classes in the order of their words or whole numbers, or numbers where one has a point.

    Args:
        labels: as they are written.
        where: they stand, for the error.

    Returns:
        Class numbers, int64 (n,); or float32 (n, 1).

    Raises:
        TombolaError: if all are alike.

    Examples:
        >>> targets_of(["no", "yes", "no"], "a file").tolist(), targets_of(["1", "2.5"], "a file").tolist()
        ([0, 1, 0], [[1.0], [2.5]])
    """
    kinds = set(labels)
    if len(kinds) < 2:
        raise TombolaError(f"all labels of {where} are {next(iter(kinds), 'missing')!r}; there is nothing to learn")
    numbers = [_number(label) for label in kinds]
    if all(number is not None for number in numbers) and any("." in label or "e" in label.lower() for label in kinds):
        return torch.tensor([[float(label)] for label in labels])
    whole = all(number is not None for number in numbers)
    order = sorted(kinds, key=float) if whole else sorted(kinds)
    place = {label: number for number, label in enumerate(order)}
    return torch.tensor([place[label] for label in labels])


def read_table(lines: Iterable[str], delimiter: str, *, quoted: bool = True) -> list[list[str]]:
    """The rows of a table of texts, whatever their length.

    Args:
        lines: of the file.
        delimiter: what stands between two cells.
        quoted: whether quotation marks hold a cell together.
    """
    csv.field_size_limit(2**24)
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    return [row for row in csv.reader(lines, delimiter=delimiter, quoting=quoting) if row]


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise TombolaError(f"there is no file {path}; give texts:PATH with a CSV file of the columns text and label")
    try:
        lines = io.StringIO(content_of(path).decode("utf-8-sig"), newline="")
        table = read_table(lines, "\t" if path.suffix.lower() == ".tsv" else ",")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TombolaError(f"{path} cannot be read as a table in UTF-8 ({error}); save it as CSV") from error
    if len(table) < 2:
        raise TombolaError(f"{path} has {max(len(table) - 1, 0)} rows below its header; it needs texts and labels")
    header = [name.strip().lower() for name in table[0]]
    for number, row in enumerate(table[1:], 2):
        if len(row) != len(header):
            raise TombolaError(
                f"{path} has {len(row)} cells in row {number} and {len(header)} columns; put texts with commas into "
                "quotation marks"
            )
    return [dict(zip(header, row, strict=True)) for row in table[1:]]


def _column(row: dict[str, str], names: Sequence[str]) -> str:
    return next((name for name in names if name in row), "")


def _number(label: str) -> float | None:
    try:
        return float(label)
    except ValueError:
        return None


def _splits(pieces: Tensor, targets: Tensor, split: Sequence[str] | None, path: Path) -> Data:
    if split is None:
        test = torch.arange(len(targets)) % TEST_EVERY == 0
        return {"train": (pieces[~test], targets[~test]), "test": (pieces[test], targets[test])}
    words = [{"valid": "validation", "dev": "validation"}.get(word.lower(), word.lower()) for word in split]
    foreign = next((word for word in words if word not in SPLITS), None)
    if foreign is not None:
        raise TombolaError(f"{path} has the split '{foreign}'; give train, validation or test")
    for name in ("train", "test"):
        if name not in words:
            raise TombolaError(f"{path} has no row of the split '{name}'; give it some, or leave the column out")
    chosen = {name: torch.tensor([word == name for word in words]) for name in SPLITS if name in words}
    return {name: (pieces[own], targets[own]) for name, own in chosen.items()}
