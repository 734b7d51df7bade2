"""A run's specification, what it is, and what it is called."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tombola.methods import AMOUNTS, Method, blocks_removed, label_of
from tombola.robust import Robustness
from tombola.structure import kept_share
from tombola.tickets import Ticket
from tombola.training import Run, Task, fingerprint, task_identity

CONDITIONS = ("threads", "device")
"""Under what a run is carried out; they move the last digits of its outcome, and do not make it another run."""
NAMES = ("task", "label", "began")
"""What settings say beside what decides a run and the conditions."""


@dataclass(frozen=True)
class RunSpec:
    """One run: train a subject, or a control of it.

    Args:
        task: what is learnt.
        subject: a method, which finds its ticket anew with this seed; a ticket; None for the dense network.
        control: which control of the subject, "" for the ticket itself.
        seed: of the search, the data order and all that is random.
        init_seed: of the dense network's initialisation, if another.
        extra_epochs: beyond the recipe.
        lr: of the training, if it is neither the recipe's nor the one that the ticket prescribes.
        robustness: how the trained network is tried beyond the test split.
        label: what the subject is called in reports; None for the preset that it is and what differs from it.
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

    @cached_property
    def method(self) -> str:
        """What the subject is called in a comparison; "" for the dense network."""
        if self.subject is None:
            return ""
        if self.label is not None:
            return self.label
        if isinstance(self.subject, Ticket):
            return self.subject.provenance.method or "ticket"
        return label_of(self.subject)

    @cached_property
    def density(self) -> float:
        """The share of units that is to stay, for the record."""
        if self.subject is None:
            return 1.0
        if isinstance(self.subject, Ticket) or blocks_removed(self.subject) is None:
            return self.subject.density

        def probe(model: nn.Module) -> Any:
            return Run(self.seed).probe(self.task)(model)

        return kept_share(self.subject.granularity.units(self.task.build(self.seed), probe), self.subject.density)


def task_settings(task: Task, seed: int, device: torch.device) -> dict[str, Any]:
    """What a task comes to, what it is called, and the conditions here."""
    known = task_identity(task, seed, task.recipe, task.recipe.resolved_precision(device))
    return {"task": dict(getattr(task, "labels", {})), **known, **conditions(device)}


def conditions(device: torch.device) -> dict[str, Any]:
    """Under what runs are carried out here."""
    return {"threads": torch.get_num_threads(), "device": device.type}


def digest(settings: Mapping[str, Any]) -> str:
    """The fingerprint of a run: of all its settings but names and conditions."""
    return fingerprint({key: own for key, own in settings.items() if key not in (*NAMES, *CONDITIONS)})


def subject_kind(settings: Mapping[str, Any]) -> str:
    """The fingerprint of what a run is about, however much it keeps: runs that differ in this alone have one name."""
    return fingerprint(_without_amount(settings.get("subject")))


def _without_amount(described: Any) -> Any:
    if not isinstance(described, Mapping):
        return described
    return {key: _without_amount(own) for key, own in described.items() if key not in AMOUNTS}


@cache
def source_digest() -> str:
    """A fingerprint of the package's own source."""
    root = Path(__file__).parents[1]
    content = hashlib.blake2b(digest_size=8)
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.toml")]):
        content.update(str(path.relative_to(root)).encode())
        content.update(path.read_bytes())
    return content.hexdigest()
