"""GLUE (Wang et al., ICLR 2019): its tasks' files as they are distributed, one folder a task."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tombola.errors import TombolaError
from tombola.files import content_of
from tombola.zoo.normalisation import Data
from tombola.zoo.text_tables import read_table
from tombola.zoo.word_pieces import TextWarning, word_pieces


@dataclass(frozen=True)
class Layout:
    """Where a task's files have their texts and labels.

    Args:
        folder: of the task.
        texts: the columns of a text, or of a pair: by name, or by number where there is no header.
        label: the column of the label.
        classes: the labels in the order of their classes; none for numbers.
        dev: the file of the development split.
    """

    folder: str
    texts: Sequence[str | int]
    label: str | int
    classes: Sequence[str] = ("0", "1")
    dev: str = "dev.tsv"


ENTAILED = ("entailment", "not_entailment")
INFERENCE = ("contradiction", "entailment", "neutral")
TASKS = {
    "CoLA": Layout("CoLA", (3,), 1),
    "SST-2": Layout("SST-2", ("sentence",), "label"),
    "MRPC": Layout("MRPC", ("#1 String", "#2 String"), "Quality"),
    "QQP": Layout("QQP", ("question1", "question2"), "is_duplicate"),
    "STS-B": Layout("STS-B", ("sentence1", "sentence2"), "score", ()),
    "MNLI": Layout("MNLI", ("sentence1", "sentence2"), "gold_label", INFERENCE, "dev_matched.tsv"),
    "MNLI-mm": Layout("MNLI", ("sentence1", "sentence2"), "gold_label", INFERENCE, "dev_mismatched.tsv"),
    "QNLI": Layout("QNLI", ("question", "sentence"), "label", ENTAILED),
    "RTE": Layout("RTE", ("sentence1", "sentence2"), "label", ENTAILED),
    "WNLI": Layout("WNLI", ("sentence1", "sentence2"), "label"),
}
HIDDEN = "the labels of GLUE's own test files are not given out"


def glue(task: str, folder: Path, *, tokenizer: Path | None = None, length: int | None = None) -> Data:
    """A task of GLUE: `train` is its training file, `test` its development file, since test labels are hidden.

    The validation split is set aside from the training file.

    Args:
        task: the task's name, as SST-2.
        folder: holds the folders of the tasks, as GLUE's archives make them, or is that of this task.
        tokenizer: a folder with a tokenizer's files; that of MiniLM if None.
        length: word pieces of each text or pair; 128 if None, or those of the longest where it is shorter.

    Returns:
        The splits, each (pieces int64, classes int64; of STS-B numbers from 0 to 5, float32 (n, 1)).

    Raises:
        TombolaError: if a file or column is missing.
    """
    layout = TASKS[task]
    place = folder / layout.folder if (folder / layout.folder).is_dir() else folder
    found = {"train": _table(place / "train.tsv", layout), "test": _table(place / layout.dev, layout)}
    texts = [own for rows, _ in found.values() for own in rows]
    pairs = [row[1] for row in texts] if len(layout.texts) > 1 else None
    pieces = word_pieces([row[0] for row in texts], pairs, tokenizer=tokenizer, length=length)
    parts = pieces.split([len(rows) for rows, _ in found.values()])
    return {split: (own, targets) for (split, (_, targets)), own in zip(found.items(), parts, strict=True)}


def _table(path: Path, layout: Layout) -> tuple[list[list[str]], torch.Tensor]:
    """The texts of a file, and its targets."""
    if not path.is_file():
        raise TombolaError(
            f"there is no file {path}; give --data-dir DIR with GLUE's files as they are distributed, "
            f"DIR/{layout.folder}/train.tsv and DIR/{layout.folder}/{layout.dev}"
        )
    lines = content_of(path).decode("utf-8-sig", "replace").split("\n")
    rows = read_table((line.rstrip("\r") for line in lines), "\t", quoted=False)
    columns = [*layout.texts, layout.label]
    if isinstance(layout.label, str):
        header, rows = (rows[0], rows[1:]) if rows else ([], [])
        if absent := [str(name) for name in columns if name not in header]:
            raise TombolaError(f"{path} has no column {', '.join(absent)}; give the file as GLUE distributes it")
        numbers = [header.index(str(name)) for name in columns]
    else:
        numbers = [int(name) for name in columns]
    known = set(layout.classes)
    whole = [row for row in rows if len(row) > max(numbers) and (not known or row[numbers[-1]] in known)]
    if layout.classes == ():
        whole = [row for row in whole if _is_number(row[numbers[-1]])]
    if not whole:
        raise TombolaError(f"{path} has no row with texts and a label ({HIDDEN}); give the file as GLUE distributes it")
    if len(whole) < len(rows):
        warnings.warn(
            f"{len(rows) - len(whole):,} of {len(rows):,} rows of {path} lack a text or a label and are left out",
            TextWarning,
            stacklevel=3,
        )
    labels = [row[numbers[-1]] for row in whole]
    texts = [[row[number] for number in numbers[:-1]] for row in whole]
    if not layout.classes:
        return texts, torch.tensor([[float(label)] for label in labels])
    return texts, torch.tensor([layout.classes.index(label) for label in labels])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
