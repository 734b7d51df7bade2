"""All that the golden tests need of the package beyond `import tombola as tb`: change it when modules are renamed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import tombola as tb
from tombola import cli, zoo
from tombola.registry import SCORES
from tombola.structure import granularity
from tombola.training import checkpoint

__all__ = [
    "command",
    "gathered_score",
    "granularity",
    "preset",
    "registered_scores",
    "saved_at_every_epoch",
    "score",
    "unit_groups",
    "without_report",
    "zoo_model",
]

UNIT_GROUPS = ("groups", "inner")
"""What the attribute is called that holds a granularity's unit groups."""


def preset(name: str) -> Any:
    """A method as its preset has it."""
    return tb.METHODS[name]


def registered_scores() -> dict[str, Any]:
    """The scores of weights and of blocks that read no training, by name."""
    units = ("weight", "block")
    return {
        name: SCORES[name]
        for name, own in SCORES.entries.items()
        if own.unit in units and own.needs != "training" and not own.origin
    }


def zoo_model(name: str, shape: tuple[int, ...], classes: int, width: float) -> Callable[[], nn.Module]:
    """A factory of a model of the zoo."""
    return zoo.model(name, shape, classes, width, "fan-out" if zoo.has_starts(name) else "fan-in")


def score(own: Any, model: nn.Module, batches: Iterable[Any], loss: Any, mask: tb.Mask | None) -> dict[str, Tensor]:
    """A score in double precision; SynFlow, random orders of blocks and places in the network have their own."""
    try:
        return own(model, batches, loss, mask=mask, dtype=torch.float64)
    except TypeError:
        return own(model, batches, loss, mask=mask)


def gathered_score(own: Any, model: nn.Module, gathered: Mapping[str, Tensor], mask: tb.Mask | None) -> Any:
    """A score, in double precision, of what it gathered over a training."""
    return own.from_gathered(model, gathered, mask=mask, dtype=torch.float64)


def unit_groups(units: Any) -> tuple[Any, ...]:
    """The groups of units of one network, of those granularities that have such; in their order."""
    return next((getattr(units, name) for name in UNIT_GROUPS if hasattr(units, name)), ())


def command(words: Sequence[str | Path]) -> int:
    """Run a command of the command line in this process."""
    return cli.main([str(word) for word in words])


@contextmanager
def saved_at_every_epoch() -> Generator[None]:
    """Inside, a training's checkpoint is written after each epoch, however short."""
    with mock.patch.object(checkpoint.Checkpoint, "due", return_value=True):
        yield


@contextmanager
def without_report() -> Generator[None]:
    """Inside, `tombola compare` draws no charts, which take longer than all else here."""
    with mock.patch("tombola.cli.compare.write_report", return_value=Path("report.html")):
        yield
