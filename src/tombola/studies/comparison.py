"""Does it win? Runs of a ticket or method with dense and controls over seeds, and the verdict on them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from tombola.errors import TombolaError
from tombola.evidence import MANDATORY, MARGIN, Sanity, Verdict, budget_gap, judge
from tombola.files import FORMAT, as_written, json_of, read_as, write_atomically
from tombola.methods import Method
from tombola.robust import Robustness
from tombola.studies.execution import execute, search_all
from tombola.studies.executor import Engine, Serial
from tombola.studies.frames import Rows, dataframe, rows_of
from tombola.studies.prepared import SEARCH, found
from tombola.studies.result import Result
from tombola.studies.spec import RunSpec, subject_kind
from tombola.studies.store import Store
from tombola.tickets import Ticket
from tombola.training import Task, agreed_device, bars, fingerprint, identity

DENSE = "dense"
"""What the dense network is called in reports, and no subject beside it."""
Subject = TypeVar("Subject", bound=Ticket | Method)
Plan = dict[str, RunSpec]
"""The runs of one subject and seed, by arm."""


@dataclass(frozen=True, repr=False)
class Study:
    """Finished runs and the verdicts on them. Printed, it is a table with a row for each verdict.

    Args:
        results: of all runs, each once.
        verdicts: one for each subject and density.
        title: what the study is called in its report.
        command: what to type to make it again; "" where there is no such command.
        task: the task's labels.
        sanity: which sanity checks each method passes, where these were asked.
    """

    results: tuple[Result, ...]
    verdicts: tuple[Verdict, ...]
    title: str = ""
    command: str = ""
    task: Mapping[str, str] = field(default_factory=dict)
    sanity: tuple[Sanity, ...] = ()

    def __str__(self) -> str:
        arms = list(dict.fromkeys(arm for verdict in self.verdicts for arm in verdict.means))
        rows = [["method", "density", *arms, "wins"]]
        for verdict in self.verdicts:
            means = (f"{100 * verdict.means[arm]:.2f}" if arm in verdict.means else "" for arm in arms)
            word = {True: "yes", False: "no", None: "undecided"}[verdict.wins]
            rows.append([verdict.subject, f"{verdict.density:.4g}", *means, word])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        runs = f"{len(self.results)} runs; the metric on the test split in percent, mean over seeds"
        return "\n".join([*([self.title] if self.title else []), *lines, runs])

    __repr__ = __str__

    def save(self, folder: Path) -> None:
        """Write study.json into a folder."""
        write_atomically(Path(folder) / "study.json", json.dumps({"format": FORMAT, **asdict(self)}))

    def to_dataframe(self, rows: Rows = "runs", backend: Literal["pandas", "polars", "pyarrow"] = "pandas") -> Any:
        """A data frame with one row a run, or one an epoch.

        Args:
            rows: `runs` or `epochs`.
            backend: the library that it is of, which must be installed.
        """
        return dataframe(rows_of(self.results, rows), backend)

    @staticmethod
    def load(folder: Path) -> Study:
        """Read study.json; TombolaError if there is none, or it is damaged."""
        path = Path(folder) / "study.json"
        study = as_written(path, _study, "run the study's command again")
        if study is None:
            raise TombolaError(f"{folder} holds no study; make one with tombola compare METHOD… --out {folder}")
        return study


def _study(text: str) -> Study:
    study = read_as(Study, json_of(text))
    return replace(study, results=tuple(result.upgraded() for result in study.results))


def check(
    task: Task,
    subject: Ticket | Method,
    *,
    seeds: int = 5,
    controls: Sequence[str] = MANDATORY,
    margin: float = MARGIN,
    device: torch.device | str = "auto",
    engine: Engine | None = None,
) -> Verdict:
    """Does a ticket win (retrained with `seeds` data orders), or a method (searched anew for each seed)?"""
    study = compare(task, [subject], seeds=seeds, controls=controls, margin=margin, device=device, engine=engine)
    return study.verdicts[0]


def compare(
    task: Task,
    subjects: Sequence[Ticket | Method] | Mapping[str, Ticket | Method],
    *,
    seeds: int = 5,
    controls: Sequence[str] = MANDATORY,
    margin: float = MARGIN,
    robustness: Robustness | None = None,
    device: torch.device | str = "auto",
    engine: Engine | None = None,
) -> Study:
    """Each subject with dense and its controls over the same seeds; every arm gets the same total epochs.

    Args:
        task: what is learnt.
        subjects: methods and tickets; or these by what they are to be called in reports. Without a name of yours, a
            method is called by the preset that it is and what differs from it.
        seeds: how many; at least 3 for an interval worth reading.
        controls: what each ticket must beat.
        margin: the difference in the metric that counts as none.
        robustness: how all of them are tried beyond the test split, if at all.
        device: where networks train: the engine's, or without an engine CUDA if there is one, else the CPU; or one of
            your choice, as `cuda:1`.
        engine: where runs are kept, so that a killed study goes on; without one nothing outlasts the call.
    """
    if seeds < 1:
        raise TombolaError(f"seeds is {seeds}; give at least 1, and at least 3 for an interval worth reading")
    device = agreed_device(device, None if engine is None else engine.executor.device, "engine")
    if engine is None:
        with tempfile.TemporaryDirectory(prefix="tombola-") as folder, bars() as shown:
            engine = Engine(Store(Path(folder)), Serial(device, bars=shown))
            return compare(
                task, subjects, seeds=seeds, controls=controls, margin=margin, robustness=robustness, engine=engine
            )
    comparison = Comparison(task, tuple(labelled(subjects)), tuple(range(seeds)), tuple(controls), margin, robustness)
    searches = search_all(comparison.searches(), engine)
    plans = comparison.plans({searched(run.spec.subject, run.spec.seed): found(run) for run in searches})
    runs = runs_of(plans)
    results = execute(list(runs.values()), engine.store, engine.executor)
    return comparison.judged(plans, dict(zip(runs, results, strict=True)))


@dataclass(frozen=True)
class Comparison:
    """What is compared, before anything ran.

    Args:
        task: what is learnt.
        subjects: tickets and methods, each with what it is called.
        seeds: of the repetitions.
        controls: what each ticket must beat.
        margin: the difference in the metric that counts as none.
        robustness: how all networks are tried beyond the test split, if at all.
    """

    task: Task
    subjects: tuple[tuple[str, Ticket | Method], ...]
    seeds: tuple[int, ...]
    controls: tuple[str, ...] = MANDATORY
    margin: float = MARGIN
    robustness: Robustness | None = None

    def searches(self) -> list[RunSpec]:
        """What is to be searched before all runs are known: each method with each seed."""
        return [
            RunSpec(self.task, subject, SEARCH, seed, label=label)
            for label, subject in self.subjects
            if not isinstance(subject, Ticket)
            for seed in self.seeds
        ]

    def plans(self, tickets: Mapping[tuple[int, int], Ticket]) -> list[Plan]:
        """The runs of each subject and seed by arm: the ticket, each control, and dense for as long as they train.

        Args:
            tickets: what the searches found, by what `searched` gives. Without its ticket, a method has no plan.
        """
        made = []
        for label, subject in self.subjects:
            for seed in self.seeds:
                if isinstance(subject, Ticket):
                    ticket, init = subject, subject.provenance.seed
                elif (ticket := tickets.get(searched(subject, seed))) is not None:
                    init = None
                else:
                    continue
                own = RunSpec(self.task, subject, seed=seed, label=label, robustness=self.robustness)
                gap = budget_gap(ticket, self.task)
                dense = replace(own, subject=None, label=None, init_seed=init, extra_epochs=gap)
                controls = {name: replace(own, control=name) for name in self.controls}
                made.append({"ticket": own} | controls | {"dense": dense})
        return made

    def judged(self, plans: Sequence[Plan], made: Mapping[tuple[object, ...], Result]) -> Study:
        """The study of finished runs, with a verdict on each subject.

        Args:
            plans: the runs by arm, of each subject and seed.
            made: the results, by what `key_of` gives of their runs; without one, its subject and seed are left out.
        """
        results: dict[tuple[object, ...], Result] = {}
        by_subject: dict[tuple[str, int], list[tuple[int, dict[str, Result]]]] = {}
        for plan in plans:
            own = {
                name: replace(made[key_of(spec)], method=spec.method)
                for name, spec in plan.items()
                if key_of(spec) in made
            }
            # A method that has two names has its runs once, and a row by each.
            results |= {(plan[name].method, key_of(plan[name])): result for name, result in own.items()}
            if len(own) == len(plan):
                spec = plan["ticket"]
                by_subject.setdefault((spec.method, id(spec.subject)), []).append((spec.seed, own))
        verdicts = []
        for repeats in by_subject.values():
            arms = {name: [own[name] for _, own in repeats] for name in repeats[0][1]}
            metrics = {name: [result.metric for result in arm] for name, arm in arms.items()}
            first = arms["ticket"][0]
            collapsed = tuple(dict.fromkeys(layer for result in arms["ticket"] for layer in result.collapsed))
            seeds = [seed for seed, _ in repeats]
            verdicts.append(judge(first.method, first.density, metrics, seeds, self.margin, collapsed))
        return Study(tuple(results.values()), tuple(verdicts))


def labelled(subjects: Sequence[Subject] | Mapping[str, Subject]) -> list[tuple[str, Subject]]:
    """Subjects with what they are called, once each; two that would be called the same are numbered."""
    if isinstance(subjects, Mapping):
        for label in subjects:
            if not label.strip() or label == DENSE:
                raise TombolaError(f"a subject is called '{label}', as only the dense network is; give another name")
        return list(subjects.items())
    kinds: dict[str, list[str]] = {}
    named: dict[str, tuple[str, Subject]] = {}
    for subject in subjects:
        label = RunSpec(None, subject).method  # ty: ignore[invalid-argument-type]
        kind = subject_kind({"subject": identity(subject)})
        known = kinds.setdefault(label, [])
        if kind not in known:
            known.append(kind)
        number = known.index(kind) + 1
        named[fingerprint(identity(subject))] = (label if number == 1 else f"{label} #{number}", subject)
    return list(named.values())


def searched(subject: object, seed: int) -> tuple[int, int]:
    """What tells apart the searches of one study."""
    return id(subject), seed


def runs_of(plans: Sequence[Plan]) -> dict[tuple[object, ...], RunSpec]:
    """The runs of plans, each once, by what tells them apart."""
    return {key_of(spec): spec for plan in plans for spec in plan.values()}


def key_of(spec: RunSpec) -> tuple[object, ...]:
    """What tells apart the runs of one study."""
    return id(spec.task), id(spec.subject), spec.control, spec.seed, spec.init_seed, spec.extra_epochs, spec.lr
