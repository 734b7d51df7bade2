"""The one engine: carry out runs, each once."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from tombola.errors import TombolaError
from tombola.evidence import Arm, effective
from tombola.methods import METHODS, Method, blocks_removed
from tombola.shrinking import within
from tombola.studies.ahead import train_ahead
from tombola.studies.prepare import Engine, arm_of, folder_of, subject_of
from tombola.studies.result import Result
from tombola.studies.spec import RunSpec, settings_of, source_digest
from tombola.studies.store import RunFolder
from tombola.tickets import Mask, Ticket
from tombola.training import Run, epochs_spent, own_randomness, start_of, train


class StaleWarning(UserWarning):
    """Results that are read were made by another version of the package's source."""


def execute(specs: Sequence[RunSpec], engine: Engine) -> list[Result]:
    """Carry out runs, in order; a finished one is read, a killed one goes on where it was.

    Small networks that can be are trained at once beforehand; the results say so.
    """
    with engine.bars.track("runs", len(specs)) as tick:
        alone = train_ahead(specs, engine)
        results = []
        for at, spec in enumerate(specs):
            result = carry_out(spec, engine, alone=alone.get(at, ""))
            results.append(result)
            tick(f"{result.arm} at {result.density:.3g}, seed {result.seed}: {result.metric:.1%}")
    warn_of_stale([result.source for result in results])
    return results


def warn_of_stale(sources: Sequence[str]) -> None:
    """Warn, once, of results that another version of the package's source made."""
    stale = sum(own != source_digest() for own in sources)
    if stale:
        warnings.warn(
            f"{stale} of {len(sources)} results were made by another version of Tombola's source; "
            "--fresh makes them again",
            StaleWarning,
            stacklevel=3,
        )


def carry_out(spec: RunSpec, engine: Engine, folder: RunFolder | None = None, alone: str = "") -> Result:
    """One run: find or take the ticket, make the control if one is asked, train, read the test split once.

    alone: why it could not train with others, for the record.
    """
    settings = settings_of(spec, engine.device)
    folder = folder or folder_of(spec, engine, settings)
    with folder.locked():
        engine.begin(folder, settings)
        done = folder.result()
        if done is not None:
            return done
        found, ticket_path = subject_of(spec, engine)
        command = command_for(spec, settings, ticket_path)
        arm = _at_rate(arm_of(spec, found, engine, folder), spec.lr)
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
            together=trained.together,
            alone=alone,
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
