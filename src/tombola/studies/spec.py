"""A run's specification, and the digest that names its folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tombola.evidence import Robustness
from tombola.methods import Method, blocks_removed, name_of
from tombola.structure import kept_share
from tombola.tickets import Ticket, digest_of, tensors_of
from tombola.training import Run, Task, beneath, data_digest, describe, fingerprint


@dataclass(frozen=True)
class RunSpec:
    """One run: train a subject (method: found anew with this seed; ticket; None: dense), or a control of it.

    density: the share of units that is to stay, for the record. seed: of the search, the data order and all that is
    random. init_seed: of the dense network's initialisation, if another. extra_epochs: beyond the recipe. lr: of the
    training, if it is neither the recipe's nor the one that the ticket prescribes. robustness: how the trained network
    is tried beyond the test split.
    """

    task: Task
    subject: Method | Ticket | None = None
    control: str = ""
    seed: int = 0
    init_seed: int | None = None
    extra_epochs: float = 0.0
    lr: float | None = None
    robustness: Robustness | None = None

    @property
    def method(self) -> str:
        """What the subject is called in a comparison."""
        if self.subject is None:
            return ""
        if isinstance(self.subject, Ticket):
            return self.subject.provenance.method or "ticket"
        return name_of(self.subject)

    @cached_property
    def density(self) -> float:
        if self.subject is None:
            return 1.0
        if isinstance(self.subject, Ticket) or blocks_removed(self.subject) is None:
            return self.subject.density

        def probe(model: nn.Module) -> Any:
            return Run(self.seed).probe(self.task)(model)

        return kept_share(self.subject.granularity.units(self.task.build(self.seed), probe), self.subject.density)


def settings_of(spec: RunSpec, device: torch.device) -> dict[str, Any]:
    """All that decides what a run comes to, as JSON."""
    subject: Any = describe(spec.subject)
    if isinstance(spec.subject, Ticket):
        subject = {"ticket": spec.subject.digest}
    own = {"subject": subject, "control": spec.control, "seed": spec.seed}
    own |= {"init_seed": spec.init_seed} if spec.init_seed is not None else {}
    own |= {"extra_epochs": spec.extra_epochs} if spec.extra_epochs else {}
    own |= {"lr": spec.lr} if spec.lr is not None else {}
    own |= {"robustness": describe(spec.robustness)} if spec.robustness is not None else {}
    return own | task_settings(spec.task, spec.seed, device)


def task_settings(task: Task, seed: int, device: torch.device) -> dict[str, Any]:
    """What a task comes to on a device: network, data, loss, recipe, precision, threads."""
    model = task.build(seed)
    return {
        "task": dict(getattr(task, "labels", {})),
        "network": {"repr": fingerprint(repr(model)), "values": digest_of(tensors_of(model))},
        "data": data_digest(task),
        "loss": describe(beneath(task, "loss")),
        "metric": describe(beneath(task, "metric")),
        "recipe": describe(task.recipe),
        "precision": task.recipe.resolved_precision(device),
        "threads": torch.get_num_threads(),
        "device": device.type,
    }


def digest(settings: dict[str, Any]) -> str:
    """The fingerprint of settings that names a run's folder; what a task is called does not enter it."""
    return fingerprint(json.dumps({k: v for k, v in settings.items() if k != "task"}, sort_keys=True))


@cache
def source_digest() -> str:
    """A fingerprint of the package's own source."""
    root = Path(__file__).parents[1]
    content = hashlib.blake2b(digest_size=8)
    for path in sorted(root.rglob("*.py")):
        content.update(str(path.relative_to(root)).encode())
        content.update(path.read_bytes())
    return content.hexdigest()
