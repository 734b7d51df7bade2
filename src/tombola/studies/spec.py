"""The specification of a run, its identity and its name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tombola.files import printable_text
from tombola.methods import AMOUNTS, Method, blocks_removed, label_of
from tombola.robust import Robustness
from tombola.structure import kept_share
from tombola.tickets import Ticket
from tombola.training import Run, Task, fingerprint, task_identity

CONDITIONS = ("threads", "device")
"""Settings of the machine: they change the last digits of a run's outcome, and do not make it another run."""
NAMES = ("task", "label", "began")
"""Settings that only name or date a run."""


@dataclass(frozen=True)
class RunSpec:
    """One run: train a subject, or a control of it.

    Args:
        task: what is learnt.
        subject: a method, which finds its ticket anew with this seed; a ticket; None for the dense network.
        control: which control of the subject; "" for the ticket itself.
        seed: of the search, the data order and everything random, 0 or larger.
        init_seed: of the dense network's initialisation, if it differs from `seed`.
        extra_epochs: epochs beyond the recipe.
        lr: the learning rate, if it is neither the recipe's nor the ticket's.
        robustness: how the trained network is tested beyond the test split.
        label: what reports call the subject; None for its preset and what differs from it.
        measures: further measures to take of the trained network on the test split.
        keeps: keep the trained network beside the result, which changes nothing of what the run is.

    Examples:
        >>> from tombola.methods import OneShot
        >>> from tombola.testing import toy_task
        >>> RunSpec(toy_task(), OneShot(density=0.2), seed=1).density, RunSpec(toy_task()).density
        (0.2, 1.0)
    """

    task: Task
    subject: Method | Ticket | None = None
    control: str = ""
    seed: int = 0
    init_seed: int | None = None
    extra_epochs: float = 0.0
    lr: float | None = None
    robustness: Robustness | None = None
    label: str | None = None
    measures: tuple[str, ...] = ()
    keeps: bool = False

    @cached_property
    def method(self) -> str:
        """What the subject is called in a comparison; "" for the dense network."""
        if self.subject is None:
            return ""
        if self.label is not None:
            return printable_text(self.label)
        if isinstance(self.subject, Ticket):
            return printable_text(self.subject.provenance.method) or "ticket"
        return printable_text(label_of(self.subject))

    @cached_property
    def density(self) -> float:
        """The asked share of units, in (0, 1]."""
        if self.subject is None:
            return 1.0
        if isinstance(self.subject, Ticket) or blocks_removed(self.subject) is None:
            return self.subject.density

        def probe(model: nn.Module) -> Any:
            return Run(self.seed).probe(self.task)(model)

        return kept_share(self.subject.granularity.units(self.task.build(self.seed), probe), self.subject.density)


def task_settings(task: Task, seed: int, device: torch.device) -> dict[str, Any]:
    """The settings of a task: its identity, its labels, and the conditions here.

    Args:
        task: the task.
        seed: decides the network that it builds.
        device: where it trains, which decides what the precision `auto` is.
    """
    decisive = task_identity(task, seed, task.recipe, task.recipe.resolved_precision(device))
    return {"task": dict(getattr(task, "labels", {})), **decisive, **conditions(device)}


def conditions(device: torch.device, threads: int | None = None) -> dict[str, Any]:
    """The conditions under which runs are carried out; with the threads that this process has, if none are given."""
    return {"threads": torch.get_num_threads() if threads is None else threads, "device": device.type}


def digest(settings: Mapping[str, Any]) -> str:
    """The fingerprint of a run: of all its settings but names and conditions.

    Examples:
        >>> digest({"seed": 0, "device": "cpu"}) == digest({"seed": 0, "device": "cuda", "label": "mine"})
        True
    """
    return fingerprint({key: value for key, value in settings.items() if key not in (*NAMES, *CONDITIONS)})


def subject_kind(settings: Mapping[str, Any]) -> str:
    """The fingerprint of a run's subject without its amounts: runs of one kind share a name and differ in density."""
    return fingerprint(_without_amount(settings.get("subject")))


def _without_amount(description: Any) -> Any:
    if not isinstance(description, Mapping):
        return description
    return {key: _without_amount(value) for key, value in description.items() if key not in AMOUNTS}


@cache
def source_digest() -> str:
    """The fingerprint of the package's source, kept with each result."""
    root = Path(__file__).parents[1]
    content = hashlib.blake2b(digest_size=8)
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.toml")]):
        content.update(str(path.relative_to(root)).encode())
        content.update(path.read_bytes())
    return content.hexdigest()
