"""What a run needs before it trains: where it is kept, its ticket, and the arm that it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tombola.errors import TombolaError
from tombola.evidence import Against, Arm, control
from tombola.methods import Method, find
from tombola.studies.spec import RunSpec, settings_of
from tombola.studies.store import RunFolder, Store
from tombola.tickets import Ticket
from tombola.training import Bars, Meter, Run, Task


@dataclass(frozen=True)
class Engine:
    """Where and how runs are carried out: store, device, bars, meter, and whether finished runs are made anew, once."""

    store: Store
    device: torch.device = torch.device("cpu")
    bars: Bars = Bars()
    fresh: bool = False
    renewed: set[Path] = field(default_factory=set)
    meter: Meter | None = None

    def begin(self, folder: RunFolder, settings: dict[str, Any]) -> None:
        """Begin, or go on with, the run of these settings in a folder that is locked."""
        if self.fresh and folder.path not in self.renewed:
            folder.clear()
            self.renewed.add(folder.path)
        folder.begin(settings)


def folder_of(spec: RunSpec, engine: Engine, settings: dict[str, Any]) -> RunFolder:
    """The store's folder of a run."""
    parts = [spec.method or "dense", spec.control, f"{spec.density:.4g}", f"s{spec.seed}"]
    return engine.store.folder("-".join(part for part in parts if part), settings)


def search(
    task: Task, method: Method, seed: int, engine: Engine, folder: RunFolder | None = None
) -> tuple[Ticket, RunFolder]:
    """Find a ticket once: in `folder`, or in the store's own for these settings."""
    spec = RunSpec(task, method, "search", seed)
    settings = settings_of(spec, engine.device)
    folder = folder or engine.store.folder(f"find-{spec.method}-{spec.density:.4g}-s{seed}", settings)
    with folder.locked():
        engine.begin(folder, settings)
        ticket = folder.ticket()
        if ticket is None:
            run = Run(seed, folder.path, engine.device, engine.bars, meter=engine.meter)
            ticket = find(task, method, run=run)
            folder.write_history(run.history)
            ticket.save(folder.ticket_path)
            run.clear()
    return ticket, folder


def subject_of(spec: RunSpec, engine: Engine) -> tuple[Ticket | None, Path | None]:
    """The ticket that the run is about, and its file; a ticket that was given is kept beside the runs."""
    if spec.subject is None:
        return None, None
    if isinstance(spec.subject, Ticket):
        path = engine.store.root / f"ticket-{spec.subject.digest[:12]}.safetensors"
        if not path.exists():
            spec.subject.save(path)
        return spec.subject, path
    ticket, folder = search(spec.task, spec.subject, spec.seed, engine)
    return ticket, folder.ticket_path


def arm_of(spec: RunSpec, ticket: Ticket | None, engine: Engine, folder: RunFolder) -> Arm:
    """What is trained, but for the run's own learning rate; a control that searches does so in the run's folder."""
    if ticket is None:
        if spec.control:
            raise TombolaError(f"the dense network has no control '{spec.control}'; give a ticket or a method")
        return Arm(spec.task, None, spec.extra_epochs)
    if not spec.control:
        return Arm(spec.task, ticket)
    method = None if isinstance(spec.subject, Ticket) else spec.subject
    run = Run(spec.seed, folder.path / "stages" / "search", engine.device, engine.bars, meter=engine.meter)
    return control(spec.control, Against(spec.task, ticket, spec.seed, method, run))
