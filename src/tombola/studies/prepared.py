"""What a run needs before it trains, worked out once: what it is, where it is kept, its ticket, the arm that it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tombola.errors import TombolaError
from tombola.evidence import Against, Arm, control, control_kind
from tombola.files import Lease
from tombola.methods import find
from tombola.registry import CONTROLS
from tombola.studies.executor import Executor
from tombola.studies.run_folder import RunFolder
from tombola.studies.spec import RunSpec
from tombola.studies.store import Store
from tombola.tickets import Ticket
from tombola.training import Run, with_recipe

SEARCH = "search"
"""In a specification, in place of a control: the search alone, without training."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A run that is ready to be carried out, here or wherever an executor takes it.

    Args:
        spec: its task's precision is what the study's comes to.
        settings: what it is.
        folder: where it is kept.
        root: where the store keeps runs, and tickets that were given.
        executor: on what it is carried out.
        search: what finds its ticket; None where there is nothing to find.
    """

    spec: RunSpec
    settings: dict[str, Any]
    folder: RunFolder
    root: Path
    executor: Executor
    search: Prepared | None = None

    @property
    def is_search(self) -> bool:
        return self.spec.control == SEARCH

    def run(self, lease: Lease | None, part: Path = Path()) -> Run:
        """The stages of this run, or of a part that has a folder within its own; lease: the hold on the folder."""
        how = self.executor
        return Run(self.spec.seed, self.folder.path / part, how.device, how.bars, meter=how.meter, lease=lease)

    def subject(self) -> tuple[Ticket | None, Path | None]:
        """The ticket that the run is about, and its file; a ticket that was given is kept beside the runs.

        It is read anew in each call: a study of many runs would else hold all their tickets at once.
        """
        subject = self.spec.subject
        if subject is None:
            return None, None
        if isinstance(subject, Ticket):
            path = self.root / f"ticket-{subject.digest[:12]}.safetensors"
            if not path.exists():
                subject.save(path)
            return subject, path
        if self.search is None:
            raise TombolaError("a search finds a ticket, and is not about one")
        return found(self.search), self.search.folder.ticket_path

    def arm(self, ticket: Ticket | None, lease: Lease | None) -> Arm:
        """What is trained, but for the run's own learning rate; a control that searches does so in the run's folder.

        ticket: that the run is about; lease: the hold on that folder.
        """
        spec = self.spec
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
    """Work out what a run, or a search, is and where it is kept; if it is to be made afresh, forget what is there.

    Args:
        spec: what to carry out; with `SEARCH` in place of a control, the search of a ticket.
        store: gives the folder, and that of the search that the run needs.
        executor: on what it is carried out.
        folder: the run's own, in place of the store's.
    """
    is_search = spec.control == SEARCH
    if spec.control and not is_search:
        CONTROLS.entry(control_kind(spec.control))  # before there is a folder of what does not exist
    known, settings = executor.tasks.known(spec, executor.device, executor.threads)
    if folder is None:
        own = ["find", spec.method] if is_search else [spec.method or "dense", spec.control]
        parts = [*own, f"{spec.density:.4g}", f"s{spec.seed}"]
        folder = store.folder("-".join(part for part in parts if part), settings)
    if store.renews(folder):
        folder.renew()
    search = None
    if not (is_search or spec.subject is None or isinstance(spec.subject, Ticket)):
        search = prepare(RunSpec(spec.task, spec.subject, SEARCH, spec.seed, label=spec.label), store, executor)
    return Prepared(known, settings, folder, store.root, executor, search)


def found(search: Prepared) -> Ticket:
    """The ticket of a search, which is carried out unless it was.

    Raises:
        InUse: another process is at it.
    """
    folder, settings = search.folder, search.settings
    if (ticket := folder.finished(settings, folder.ticket)) is not None:
        return ticket
    with folder.held() as lease:
        folder.begin(settings)
        ticket = folder.ticket()
        run = search.run(lease)
        if ticket is None:
            ticket = find(search.spec.task, search.spec.subject, run=run)  # ty: ignore[invalid-argument-type]
            lease.check()
            folder.finish_search(ticket, run.history)
        run.clear()
    return ticket


def at_rate(arm: Arm, lr: float | None) -> Arm:
    """The same arm, trained at another learning rate if one is given."""
    if lr is None:
        return arm
    if getattr(arm.task, "optimizer", None) is not None:
        raise TombolaError("the task's own optimizer has learning rates of its own; leave lr out, or set it there")
    if arm.ticket is not None:
        return replace(arm, ticket=replace(arm.ticket, recipe={**arm.ticket.recipe, "lr": lr}))
    return replace(arm, task=with_recipe(arm.task, replace(arm.task.recipe, lr=lr)))
