"""The one engine: carry out runs, each once."""

from __future__ import annotations

import shlex
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tombola.files import InUse
from tombola.methods import Method, blocks_removed, label_of
from tombola.registry import METHODS
from tombola.shrinking import within
from tombola.studies.batch_training import Piece, pieces_of, train_together
from tombola.studies.executor import Engine, Executor, Serial
from tombola.studies.measures import measured
from tombola.studies.prepared import SEARCH, Prepared, at_rate, found, prepare
from tombola.studies.result import Result
from tombola.studies.run_folder import ConditionsWarning, RunFolder, in_words, under
from tombola.studies.spec import RunSpec, conditions, source_digest
from tombola.studies.store import StaleWarning, Store
from tombola.studies.task_options import task_words
from tombola.tickets import Mask, Ticket
from tombola.training import Task, check_first_batch, epochs_spent, metric_of, metric_text, train

WAIT = 0.5
"""Seconds between two looks at what another process holds."""


class ElsewhereWarning(UserWarning):
    """Another process carries out runs that are asked for here, too; they are waited for."""


def execute(
    specs: Sequence[RunSpec], store: Store, executor: Executor | None = None, folder: RunFolder | None = None
) -> list[Result]:
    """Carry out runs; a finished one is read, a killed one goes on where it was.

    Small networks that can be are trained at once; the results say so. What another process carries out is waited for.

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
        for piece, done in carried_out(pieces_of(runs), executor, is_waited_for=folder is None):
            results |= dict(zip(piece.places, done, strict=True))
            for run, result in zip(piece.runs, done, strict=True):
                came_to = metric_text(metric_of(run.spec.task), result.metric, 1)
                tick(f"{result.arm} at {result.density:.3g}, seed {result.seed}: {came_to}")
    in_order = [results[place] for place in range(len(runs))]
    warn_of_stale([result.source for result in in_order])
    warn_of_conditions(in_order, conditions(executor.device, executor.threads))
    return in_order


def search_all(specs: Sequence[RunSpec], engine: Engine) -> list[Prepared]:
    """Find the tickets of methods, each once, wherever the engine carries out work.

    Args:
        specs: each of the search of a method, or of a method's ticket.
        engine: where tickets are kept, and what searches.

    Returns:
        The searches in this order; `found` reads the ticket of each.
    """
    runs = [prepare(replace(spec, control=SEARCH), engine.store, engine.executor) for spec in specs]
    pieces = [Piece((run,), (place,)) for place, run in enumerate(runs)]
    with engine.executor.bars.track("searches", len(runs)) as tick:
        for piece, _ in carried_out(pieces, engine.executor):
            tick(f"{piece.runs[0].spec.method}, seed {piece.runs[0].spec.seed}")
    return runs


def search(
    task: Task, method: Method, seed: int, store: Store, executor: Executor, folder: RunFolder | None = None
) -> tuple[Ticket, RunFolder]:
    """Find a ticket once: in `folder`, or in the store's own for what the search is."""
    run = prepare(RunSpec(task, method, SEARCH, seed), store, executor, folder)
    return found(run), run.folder


def carried_out(
    pieces: Sequence[Piece], executor: Executor, is_waited_for: bool = True
) -> Iterator[tuple[Piece, list[Result]]]:
    """Carry out pieces wherever the executor does so, and those that other processes hold as soon as they let go.

    Args:
        pieces: what to carry out.
        executor: carries them out, each whole.
        is_waited_for: False raises InUse for what another process holds.

    Yields:
        Each piece with its results, of which a search has none.
    """
    for run in (run for piece in pieces for run in piece.runs):
        if not run.folder.is_finished:  # before there is a folder of what cannot be learnt
            check_first_batch(run.spec.task, run.spec.seed, executor.device)
    waited = False
    while pieces:
        elsewhere = []
        for place, done in executor.map(carry_out, pieces):
            if not isinstance(done, InUse):
                yield pieces[place], done
            elif is_waited_for:
                elsewhere.append(pieces[place])
            else:
                raise done
        if elsewhere and not waited:
            waited = True
            warnings.warn(
                f"another process is at {sum(len(piece.runs) for piece in elsewhere)} of the runs; this one waits for "
                "it, and takes over what it leaves",
                ElsewhereWarning,
                stacklevel=3,
            )
        pieces = elsewhere
        time.sleep(WAIT if elsewhere else 0)


def carry_out(piece: Piece) -> list[Result] | InUse:
    """Carry out a piece: its networks train at once if they can, and each run comes to its end.

    Returns:
        The results of the runs, of which a search has none; that it is in use, if another process has a part of it.
    """
    try:
        if piece.runs[0].spec.control == SEARCH:
            found(piece.runs[0])
            return []
        alone = train_together(piece) if len(piece.runs) > 1 else piece.alone
        return [finish(run, alone) for run in piece.runs]
    except InUse as error:
        return error


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


def finish(run: Prepared, alone: str = "") -> Result:
    """One run: find or take the ticket, make the control if one is asked, train, read the test split once.

    alone: why it could not train with others, for the record.
    """
    spec, folder = run.spec, run.folder
    if (done := folder.finished(run.settings, folder.result)) is not None:
        return replace(done, method=spec.method)
    with folder.held() as lease:
        settings = folder.begin(run.settings)
        stages = run.run(lease)
        done = folder.result()
        if done is not None:
            stages.clear()
            return replace(done, method=spec.method)
        found, ticket_path = run.subject()
        arm = at_rate(run.arm(found, lease), spec.lr)
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
            alive_flops=None if spec.control else arm.alive_flops(spec.seed),
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
        if spec.keeps:
            stages.give("train", folder.trained_path)
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
