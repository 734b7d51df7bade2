"""The one engine: carry out runs, each once."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tombola.methods import blocks_removed, label_of
from tombola.registry import METHODS
from tombola.shrinking import within
from tombola.studies.batch_training import train_together_first
from tombola.studies.executor import Executor, Serial
from tombola.studies.measures import measured
from tombola.studies.prepared import Prepared, at_rate, prepare
from tombola.studies.result import Result
from tombola.studies.run_folder import ConditionsWarning, RunFolder, in_words, under
from tombola.studies.spec import RunSpec, conditions, source_digest
from tombola.studies.store import StaleWarning, Store
from tombola.studies.tasks import task_words
from tombola.tickets import Mask, Ticket
from tombola.training import epochs_spent, train


def execute(
    specs: Sequence[RunSpec], store: Store, executor: Executor | None = None, folder: RunFolder | None = None
) -> list[Result]:
    """Carry out runs; a finished one is read, a killed one goes on where it was.

    Small networks that can be are trained at once beforehand; the results say so.

    Args:
        specs: what to carry out.
        store: where results are kept.
        executor: what carries them out; one after another, here, if None.
        folder: of a single run, in place of the store's own.

    Returns:
        The results in the order of the specifications, called as these say.
    """
    executor = executor or Serial()
    runs = [prepare(spec, store, executor, folder) for spec in specs]
    results: dict[int, Result] = {}
    with executor.bars.track("runs", len(runs)) as tick:
        alone = train_together_first(runs, executor)
        for place, result in executor.map(carry_out, runs, [alone.get(place, "") for place in range(len(runs))]):
            results[place] = result
            tick(f"{result.arm} at {result.density:.3g}, seed {result.seed}: {result.metric:.1%}")
    in_order = [results[place] for place in range(len(runs))]
    warn_of_stale([result.source for result in in_order])
    warn_of_conditions(in_order, conditions(executor.device))
    return in_order


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


def warn_of_conditions(results: Sequence[Result], here: dict[str, Any]) -> None:
    """Warn, once, of results that were made with other threads or on another device than there are here."""
    others = [made for result in results if (made := under(result.settings)) != {key: here[key] for key in made}]
    if others:
        told = "; ".join(dict.fromkeys(map(in_words, others)))
        warnings.warn(
            f"{len(others)} of {len(results)} results were made under other conditions ({told}; here {in_words(here)}) "
            "and are used; --exact makes them under these, beside the others",
            ConditionsWarning,
            stacklevel=3,
        )


def carry_out(run: Prepared, alone: str = "") -> Result:
    """One run: find or take the ticket, make the control if one is asked, train, read the test split once.

    alone: why it could not train with others, for the record.
    """
    spec, folder, anew = run.spec, run.folder, run.store.renews(run.folder)
    if not anew and (done := folder.finished(run.settings)) is not None:
        return replace(done, method=spec.method)
    with folder.held() as lease:
        settings = folder.begin(run.settings, anew=anew)
        stages = run.run(lease)
        done = folder.result()
        if done is not None:
            stages.clear()
            return replace(done, method=spec.method)
        (found, ticket_path), arm = run.subject, at_rate(run.arm(lease), spec.lr)
        command = command_for(spec, settings["task"], ticket_path)
        trained = train(
            arm.task, arm.ticket, seed=spec.seed, init_seed=spec.init_seed, extra_epochs=arm.extra_epochs, run=stages
        )
        lease.check()
        if spec.control and arm.ticket is not None:
            arm.ticket.save(folder.ticket_path)
            ticket_path = folder.ticket_path
        tried = spec.robustness.measure(arm.task, trained.model) if spec.robustness else {}
        further = measured(arm.task, trained.model, spec.measures)
        mask, blocks = arm.ticket.mask if arm.ticket else Mask.full({}), trained.plan.idle if trained.plan else ()
        meter = run.executor.meter
        result = Result(
            method=spec.method,
            control=spec.control,
            density=spec.density,
            weight_density=mask.density if arm.ticket else 1.0,
            network_density=arm.network_density(spec.seed),
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
            effective_density=arm.effective_density(spec.seed),
            epochs_spent=epochs_spent(arm.ticket) if arm.ticket else 0.0,
            whole=found.provenance.whole if found and not spec.control else None,
            before=found.provenance.before if found and not spec.control else None,
            ticket=str(ticket_path) if ticket_path else "",
            command=command,
            robustness=tried,
            country=meter.country if meter else "",
            together=trained.together,
            alone=alone,
            measured=further,
        )
        result = folder.finish(result)
        stages.clear()
    return result


def command_for(spec: RunSpec, labels: dict[str, Any], ticket_path: Path | None) -> str:
    """What to type to make a run again, for a task and a method that the command line knows."""
    if not labels or not (isinstance(spec.subject, Ticket | None) or label_of(spec.subject) in METHODS):
        return ""
    words = ["tombola", "train"]
    if spec.subject is None:
        words.append("dense")
    elif isinstance(spec.subject, Ticket):
        words.append(str(ticket_path))
    else:
        removed = blocks_removed(spec.subject)
        words += [label_of(spec.subject)]
        words += ["--density", f"{spec.subject.density:g}"] if removed is None else ["--remove", str(removed)]
    words += task_words(labels)
    words += ["--seed", str(spec.seed)]
    words += ["--init-seed", str(spec.init_seed)] if spec.init_seed is not None else []
    words += ["--extra-epochs", f"{spec.extra_epochs:g}"] if spec.extra_epochs else []
    words += ["--lr", f"{spec.lr:g}"] if spec.lr is not None else []
    words += ["--control", spec.control] if spec.control else []
    return shlex.join(words)
