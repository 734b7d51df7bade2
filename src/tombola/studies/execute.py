"""The one engine: carry out runs, each once."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tombola.errors import TombolaError
from tombola.evidence import Against, Arm, control, effective
from tombola.methods import METHODS, Method, blocks_removed, find
from tombola.shrink import within
from tombola.studies.result import Result
from tombola.studies.spec import RunSpec, settings_of, source_digest
from tombola.studies.store import RunFolder, Store
from tombola.tickets import Mask, Ticket
from tombola.training import Bars, Meter, Run, Task, epochs_spent, own_randomness, start_of, train


class StaleWarning(UserWarning):
    """Results that are read were made by another version of the package's source."""


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


def execute(specs: Sequence[RunSpec], engine: Engine) -> list[Result]:
    """Carry out runs one after another, in order; a finished one is read, a killed one goes on where it was."""
    with engine.bars.track("runs", len(specs)) as tick:
        results = []
        for spec in specs:
            result = carry_out(spec, engine)
            results.append(result)
            tick(f"{result.arm} at {result.density:.3g}, seed {result.seed}: {result.metric:.1%}")
    stale = sum(result.source != source_digest() for result in results)
    if stale:
        warnings.warn(
            f"{stale} of {len(results)} results were made by another version of Tombola's source; "
            "--fresh makes them again",
            StaleWarning,
            stacklevel=2,
        )
    return results


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


def carry_out(spec: RunSpec, engine: Engine, folder: RunFolder | None = None) -> Result:
    """One run: find or take the ticket, make the control if one is asked, train, read the test split once."""
    settings = settings_of(spec, engine.device)
    if folder is None:
        parts = [spec.method or "dense", spec.control, f"{spec.density:.4g}", f"s{spec.seed}"]
        folder = engine.store.folder("-".join(part for part in parts if part), settings)
    with folder.locked():
        engine.begin(folder, settings)
        done = folder.result()
        if done is not None:
            return done
        found, ticket_path = _subject(spec, engine)
        command = command_for(spec, settings, ticket_path)
        searching = Run(spec.seed, folder.path / "stages" / "search", engine.device, engine.bars, meter=engine.meter)
        arm = _at_rate(_arm(spec, found, searching), spec.lr)
        run = Run(spec.seed, folder.path, engine.device, engine.bars, meter=engine.meter)
        init = spec.init_seed
        trained = train(arm.task, arm.ticket, seed=spec.seed, init_seed=init, extra_epochs=arm.extra_epochs, run=run)
        if spec.control and arm.ticket is not None:
            arm.ticket.save(folder.ticket_path)
            ticket_path = folder.ticket_path
        tried = spec.robustness.measure(arm.task, trained.model) if spec.robustness else {}
        mask, blocks = arm.ticket.mask if arm.ticket else Mask.full({}), trained.plan.idle if trained.plan else ()
        result = Result(
            method=spec.method,
            control=spec.control,
            density=spec.density,
            weight_density=mask.density if arm.ticket else 1.0,
            seed=spec.seed,
            metric=trained.metric,
            loss=trained.loss,
            validation=trained.validation,
            epochs=trained.epochs,
            history=trained.history,
            layers={name: (count, mask.bits[name].size) for name, count in mask.counts.items()},
            search=dict(found.provenance.cost) if found and not spec.control else {},
            training=asdict(trained.cost),
            settings=settings,
            digest=folder.path.name,
            source=source_digest(),
            collapsed=tuple(name for name in mask.collapsed if not within(name, blocks)),
            effective_density=_effective_density(arm, spec.seed),
            epochs_spent=epochs_spent(arm.ticket) if arm.ticket else 0.0,
            whole=found.provenance.whole if found and not spec.control else None,
            before=found.provenance.before if found and not spec.control else None,
            ticket=str(ticket_path) if ticket_path else "",
            command=command,
            robustness=tried,
            country=engine.meter.country if engine.meter else "",
        )
        folder.finish(result)
        run.clear()
    return result


def command_for(spec: RunSpec, settings: dict[str, Any], ticket_path: Path | None) -> str:
    """What to type to make a run again, for a task and a method that the command line knows."""
    labels = settings["task"]
    if not labels or (spec.method not in METHODS and not isinstance(spec.subject, Ticket | None)):
        return ""
    words = ["tombola", "train"]
    if spec.subject is None:
        words.append("dense")
    elif isinstance(spec.subject, Ticket):
        words.append(str(ticket_path))
    else:
        words += [spec.method, *_amount(spec.subject)]
    words += [word for key, value in labels.items() for word in (f"--{key}", value) if word]
    words += ["--seed", str(spec.seed)]
    words += ["--init-seed", str(spec.init_seed)] if spec.init_seed is not None else []
    words += ["--extra-epochs", f"{spec.extra_epochs:g}"] if spec.extra_epochs else []
    words += ["--lr", f"{spec.lr:g}"] if spec.lr is not None else []
    words += ["--control", spec.control] if spec.control else []
    return " ".join(words)


def _amount(method: Method) -> list[str]:
    """How much a method keeps, as typed."""
    count = blocks_removed(method)
    return ["--density", f"{method.density:g}"] if count is None else ["--remove", str(count)]


def _subject(spec: RunSpec, engine: Engine) -> tuple[Ticket | None, Path | None]:
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


def _arm(spec: RunSpec, ticket: Ticket | None, run: Run) -> Arm:
    """What is trained; run: of the search that a control may need."""
    if ticket is None:
        if spec.control:
            raise TombolaError(f"the dense network has no control '{spec.control}'; give a ticket or a method")
        return Arm(spec.task, None, spec.extra_epochs)
    if not spec.control:
        return Arm(spec.task, ticket)
    method = None if isinstance(spec.subject, Ticket) else spec.subject
    return control(spec.control, Against(spec.task, ticket, spec.seed, method, run))


def _at_rate(arm: Arm, lr: float | None) -> Arm:
    """The same arm, trained at another learning rate if one is given."""
    if lr is None:
        return arm
    if arm.ticket is not None:
        return replace(arm, ticket=replace(arm.ticket, recipe={**arm.ticket.recipe, "lr": lr}))
    return replace(arm, task=replace(arm.task, recipe=replace(arm.task.recipe, lr=lr)))  # ty: ignore[invalid-argument-type]


def _effective_density(arm: Arm, seed: int) -> float | None:
    if arm.ticket is None:
        return None
    model = start_of(arm.task, arm.ticket, seed)
    with own_randomness(torch.device("cpu"), seed), contextlib.suppress(TombolaError):
        return effective(model, arm.ticket.mask, arm.task.batches("train", seed, 0), arm.task.forward).density
    return None
