"""Does it win? Runs of a ticket or method with dense and controls over seeds, and the verdict on them."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Unpack

import torch

from tombola.errors import TombolaError
from tombola.evidence import MANDATORY, ONE_LOOK, Better, EachSeed, Measure, Ranking, Sanity, Verdict
from tombola.files import FORMAT, as_written, json_of, read_as, write_atomically
from tombola.methods import Method
from tombola.robust import Robustness
from tombola.shrinking import Targets
from tombola.studies.executor import Engine, Serial
from tombola.studies.frames import dataframe, rows_of
from tombola.studies.latex import verdict_table
from tombola.studies.measures import also_of, check_direction, further
from tombola.studies.plan import Plan
from tombola.studies.rankings import DENSE
from tombola.studies.result import Result
from tombola.studies.sections import Section
from tombola.studies.seeds import Rows, fixed, seconds_of, until_decided
from tombola.studies.spec import RunSpec, subject_kind
from tombola.studies.store import Store
from tombola.studies.targets import aimed, target_section
from tombola.tickets import Ticket
from tombola.training import Task, agreed_device, bars, fingerprint, identity

Until = Literal["seeds", "decided"]
Subjects = Sequence[Ticket | Method] | Mapping[str, Ticket | Method]
Subject = TypeVar("Subject", bound=Ticket | Method)


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
        rankings: the methods against each other, at each density that several have and over all.
        sections: of its report, on what was measured beside its runs.
    """

    results: tuple[Result, ...]
    verdicts: tuple[Verdict, ...]
    title: str = ""
    command: str = ""
    task: Mapping[str, str] = field(default_factory=dict)
    sanity: tuple[Sanity, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    sections: tuple[Section, ...] = ()

    def __str__(self) -> str:
        arms = list(dict.fromkeys(arm for verdict in self.verdicts for arm in verdict.means))
        rows = [["method", "density", "seeds", *arms, "wins"]]
        for verdict in self.verdicts:
            means = (verdict.measure.text(verdict.means[arm]) if arm in verdict.means else "" for arm in arms)
            word = {True: "yes", False: "no", None: "undecided"}[verdict.wins]
            rows.append([verdict.subject, f"{verdict.density:.4g}", str(len(verdict.seeds)), *means, word])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        runs = f"{len(self.results)} runs; the metric on the test split, mean over seeds"
        ranked = [ranking.summary for ranking in self.rankings]
        return "\n".join([*([self.title] if self.title else []), *lines, runs, *ranked])

    __repr__ = __str__

    def save(self, folder: Path) -> None:
        """Write study.json into a folder."""
        write_atomically(Path(folder) / "study.json", json.dumps({"format": FORMAT, **asdict(self)}))

    def to_dataframe(
        self, rows: Literal["runs", "epochs"] = "runs", backend: Literal["pandas", "polars", "pyarrow"] = "pandas"
    ) -> Any:
        """A data frame with one row a run, or one an epoch.

        Args:
            rows: `runs` or `epochs`.
            backend: the library that it is of, which must be installed.
        """
        return dataframe(rows_of(self.results, rows), backend)

    def to_latex(self, caption: str = "", label: str = "") -> str:
        """A table for LaTeX with a row for each verdict; its document needs the package booktabs.

        Args:
            caption: below the table, which is then a float; "" gives the tabular alone.
            label: to refer to the float.

        Returns:
            The table. Winners are in bold, and differences are in points of a share.
        """
        return verdict_table(self.verdicts, self.results, caption, label)

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
    seeds: int | None = None,
    until: Until = "seeds",
    budget: float | str | None = None,
    controls: Sequence[str] = MANDATORY,
    margin: float | None = None,
    measure: Measure | Better | None = None,
    also: Sequence[str | Measure] = (),
    device: torch.device | str = "auto",
    engine: Engine | None = None,
    **targets: Unpack[Targets],
) -> Verdict:
    """Does a ticket win (retrained with `seeds` data orders), or a method (searched anew for each seed)?

    The arguments are those of `compare`.

    Examples:
        >>> import tombola as tb
        >>> from tombola.testing import toy_task
        >>> verdict = tb.check(toy_task(epochs=1), tb.OneShot(density=0.2), until="decided", seeds=4)
        >>> verdict.ended in ("decided", "futile", "most")
        True
    """
    study = compare(
        task,
        [subject],
        seeds=seeds,
        until=until,
        budget=budget,
        controls=controls,
        margin=margin,
        measure=measure,
        also=also,
        device=device,
        engine=engine,
        **targets,
    )
    return study.verdicts[0]


def compare(
    task: Task,
    subjects: Sequence[Ticket | Method] | Mapping[str, Ticket | Method],
    *,
    seeds: int | None = None,
    until: Until = "seeds",
    budget: float | str | None = None,
    controls: Sequence[str] = MANDATORY,
    margin: float | None = None,
    measure: Measure | Better | None = None,
    also: Sequence[str | Measure] = (),
    equal_cost: bool = False,
    robustness: Robustness | None = None,
    device: torch.device | str = "auto",
    engine: Engine | None = None,
    **targets: Unpack[Targets],
) -> Study:
    """Each subject with dense and its controls over the same seeds; every arm gets the same total epochs.

    Args:
        task: what is learnt.
        subjects: methods and tickets; or these by what they are to be called in reports. Without a name of yours, a
            method is called by the preset that it is and what differs from it.
        seeds: how many; at least 3 for an interval worth reading, and 5 if not given. Until it is decided: the most,
            chosen before the first look since it decides the boundaries; 20 if not given.
        until: "seeds" runs them all; "decided" looks after each seed from the third, and ends each verdict as soon as
            it is decided, or as more seeds are futile. A wrong verdict stays as rare over all looks as after one.
        budget: until it is decided, the time that may be spent: seconds, or a text as "20m". A seed that would go
            beyond is not begun. The same call with a larger budget goes on, given an engine.
        controls: what each ticket must beat.
        margin: the difference in the metric that counts as none, in the metric's own unit; None takes the measure's.
        measure: what the task's metric is; or which of its values are better, "lower" or "higher". None takes what the
            metric's entry says, and of a metric of yours what its attribute `higher_is_better` or its name says.
        also: further measures, in which the ticket may not be worse than dense either: "loss", "training-seconds",
            "step-memory", "calibration-error", "latency", or a metric's name; or such a `Measure` with a margin. Of an
            adversarial task "robust-accuracy" is always one.
        equal_cost: rank methods at equal cost, too: cheaper ones, and dense, then train for longer.
        robustness: how all of them are tried beyond the test split, if at all.
        device: where networks train: the engine's, or without an engine CUDA if there is one, else the CPU; or one of
            your choice, as `cuda:1`.
        engine: where runs are kept, so that a killed study goes on; without one nothing outlasts the call.
        **targets: what the smaller networks shall be, in place of the methods' densities: `flops`, `parameters`,
            `speedup` and `latency` as of `tombola.shrinking.Target`. `round_to` and `protect` as of `tombola.Channels`.

    Raises:
        TombolaError: if the number of seeds, the margin, a measure or the budget makes no sense, or a target cannot be
            reached.
    """
    if until not in ("seeds", "decided"):
        raise TombolaError(f"until is '{until}'; give 'seeds' or 'decided'")
    limit = seconds_of(budget)
    if limit is not None and until != "decided":
        raise TombolaError(
            "a budget ends a study that runs until it is decided; give until='decided' (--until-decided)"
        )
    looks = EachSeed(EachSeed.most if seeds is None else seeds) if until == "decided" else ONE_LOOK
    seeds = 5 if seeds is None else seeds
    if seeds < 1:
        raise TombolaError(f"seeds is {seeds}; give at least 1, and at least 3 for an interval worth reading")
    if margin is not None and not 0 <= margin < math.inf:
        raise TombolaError(f"the margin is {margin}; give a number of at least 0, in the metric's unit")
    also = also_of(task, also)
    further_measures = further(also)
    check_direction(task, measure)
    device = agreed_device(device, None if engine is None else engine.executor.device, "engine")
    with contextlib.ExitStack() as stack:
        if engine is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tombola-"))
            engine = Engine(Store(Path(folder)), Serial(device, bars=stack.enter_context(bars())))
        plan = Plan(task, tuple(controls), margin, measure, further_measures, looks, robustness)
        most = looks.most if isinstance(looks, EachSeed) else seeds
        subjects, sections = _at_targets(task, subjects, targets, engine, most)
        rows = Rows(plan, labelled(subjects), engine)
        verdicts = until_decided(rows, looks, limit) if isinstance(looks, EachSeed) else fixed(rows, seeds)
        return Study(rows.results, verdicts, rankings=rows.ranked(equal_cost), sections=sections)


def _at_targets(
    task: Task, subjects: Subjects, targets: Mapping[str, Any], engine: Engine, seeds: int
) -> tuple[Subjects, tuple[Section, ...]]:
    """The subjects at what keyword arguments ask for, and the report's section on it."""
    if not targets:
        return subjects, ()
    every = list(subjects.values() if isinstance(subjects, Mapping) else subjects)
    made = []
    for subject in every:
        if isinstance(subject, Ticket):
            raise TombolaError("a ticket has its size; give targets to a method")
        made.append(aimed(task, subject, targets, engine.store, engine.executor, seeds=seeds))
    found = [own for _, own in made if own is not None]
    sections = (target_section(found),) if found else ()
    methods: list[Ticket | Method] = [own for own, _ in made]
    return dict(zip(subjects, methods, strict=True)) if isinstance(subjects, Mapping) else methods, sections


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
