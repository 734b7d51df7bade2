"""What a run needs before it trains, worked out once: what it is, where it is kept, its ticket, the arm that it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tombola.errors import TombolaError
from tombola.evidence import Against, Arm, control, control_kind
from tombola.files import Lease
from tombola.methods import Method, find
from tombola.registry import CONTROLS
from tombola.studies.executor import Executor
from tombola.studies.run_folder import RunFolder
from tombola.studies.spec import RunSpec
from tombola.studies.store import Store
from tombola.tickets import Ticket
from tombola.training import Run, Task, with_recipe

SEARCH = "search"
"""In a specification, in place of a control: the search alone, without training."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A run that is ready to be carried out, here or wherever an executor takes it.

    Args:
        spec: its task's precision is what the study's comes to.
        settings: what it is.
        folder: where it is kept.
        store: where the search that it needs is kept.
        executor: on what it is carried out.
    """

    spec: RunSpec
    settings: dict[str, Any]
    folder: RunFolder
    store: Store
    executor: Executor

    def run(self, lease: Lease | None, part: Path = Path()) -> Run:
        """The stages of this run, or of a part that has a folder within its own; lease: the hold on the folder."""
        how = self.executor
        return Run(self.spec.seed, self.folder.path / part, how.device, how.bars, meter=how.meter, lease=lease)

    @cached_property
    def subject(self) -> tuple[Ticket | None, Path | None]:
        """The ticket that the run is about, and its file; a ticket that was given is kept beside the runs."""
        spec = self.spec
        if spec.subject is None:
            return None, None
        if isinstance(spec.subject, Ticket):
            path = self.store.root / f"ticket-{spec.subject.digest[:12]}.safetensors"
            if not path.exists():
                spec.subject.save(path)
            return spec.subject, path
        ticket, folder = search(spec.task, spec.subject, spec.seed, self.store, self.executor, label=spec.label)
        return ticket, folder.ticket_path

    def arm(self, lease: Lease | None) -> Arm:
        """What is trained, but for the run's own learning rate; a control that searches does so in the run's folder.

        lease: the hold on that folder.
        """
        spec, (ticket, _) = self.spec, self.subject
        if ticket is None:
            if spec.control:
                raise TombolaError(f"the dense network has no control '{spec.control}'; give a ticket or a method")
            return Arm(spec.task, None, spec.extra_epochs)
        if not spec.control:
            return Arm(spec.task, ticket, spec.extra_epochs)
        method = None if isinstance(spec.subject, Ticket) else spec.subject
        against = Against(spec.task, ticket, spec.seed, method, self.run(lease, Path("stages") / SEARCH))
        return control(spec.control, against)


def prepare(spec: RunSpec, store: Store, executor: Executor, folder: RunFolder | None = None) -> Prepared:
    """Work out what a run is and where it is kept: in `folder`, or in the store's own for what it is."""
    if spec.control:
        CONTROLS.entry(control_kind(spec.control))  # before there is a folder of what does not exist
    spec, settings = executor.tasks.known(spec, executor.device)
    if folder is None:
        parts = [spec.method or "dense", spec.control, f"{spec.density:.4g}", f"s{spec.seed}"]
        folder = store.folder("-".join(part for part in parts if part), settings)
    return Prepared(spec, settings, folder, store, executor)


def search(
    task: Task,
    method: Method,
    seed: int,
    store: Store,
    executor: Executor,
    folder: RunFolder | None = None,
    label: str | None = None,
) -> tuple[Ticket, RunFolder]:
    """Find a ticket once: in `folder`, or in the store's own for what the search is."""
    spec, settings = executor.tasks.known(RunSpec(task, method, SEARCH, seed, label=label), executor.device)
    folder = folder or store.folder(f"find-{spec.method}-{spec.density:.4g}-s{seed}", settings)
    own, anew = Prepared(spec, settings, folder, store, executor), store.renews(folder)
    if not anew and (ticket := folder.found(settings)) is not None:
        return ticket, folder
    with folder.held() as lease:
        folder.begin(settings, anew=anew)
        ticket = folder.ticket()
        run = own.run(lease)
        if ticket is None:
            ticket = find(spec.task, method, run=run)
            lease.check()
            folder.finish_search(ticket, run.history)
        run.clear()
    return ticket, folder


def at_rate(arm: Arm, lr: float | None) -> Arm:
    """The same arm, trained at another learning rate if one is given."""
    if lr is None:
        return arm
    if getattr(arm.task, "optimizer", None) is not None:
        raise TombolaError("the task's own optimizer has learning rates of its own; leave lr out, or set it there")
    if arm.ticket is not None:
        return replace(arm, ticket=replace(arm.ticket, recipe={**arm.ticket.recipe, "lr": lr}))
    return replace(arm, task=with_recipe(arm.task, replace(arm.task.recipe, lr=lr)))
