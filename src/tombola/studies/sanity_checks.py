"""Which sanity checks do methods pass? Runs of each with the controls that are its checks."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tombola.errors import TombolaError, unknown
from tombola.evidence import CHECKS, MARGIN, Checked, Sanity, control_kind, control_obstacle
from tombola.methods import Method
from tombola.studies.comparison import Study, compare, labelled
from tombola.studies.executor import Engine, Serial
from tombola.studies.store import Store
from tombola.training import Task, bars


def sanity(
    task: Task,
    methods: Sequence[Method] | Mapping[str, Method],
    *,
    checks: Sequence[str] = (),
    seeds: int = 3,
    margin: float = MARGIN,
    engine: Engine | None = None,
) -> Study:
    """Each method, searched anew for each seed, with those of the checks that apply to it (all if none is named).

    After Su et al., NeurIPS 2020, and Frankle et al., ICLR 2021. Raises TombolaError for a check that does not exist,
    or that applies to none of the methods. engine: as in `compare`.
    """
    if engine is None:
        with tempfile.TemporaryDirectory(prefix="tombola-") as folder, bars() as shown:
            engine = Engine(Store(Path(folder)), Serial(bars=shown))
            return sanity(task, methods, checks=checks, seeds=seeds, margin=margin, engine=engine)
    named = labelled(methods)
    for name in checks:
        if control_kind(name) not in CHECKS:
            raise unknown("check", name, CHECKS)
        why = [control_obstacle(name, own) for _, own in named]
        if all(why):
            raise TombolaError(f"the check '{name}' {why[0]}; leave it out")
    studies = [_checked(task, label, own, checks or CHECKS, seeds, margin, engine) for label, own in named]
    results = {result.digest: result for study in studies for result in study.results}
    return Study(tuple(results.values()), (), sanity=tuple(own for study in studies for own in study.sanity))


def _checked(
    task: Task, label: str, own: Method, checks: Sequence[str], seeds: int, margin: float, engine: Engine
) -> Study:
    """One method with the checks that apply to it."""
    why = {name: control_obstacle(name, own) for name in checks}
    controls = [name for name in checks if not why[name]]
    done = compare(task, {label: own}, seeds=seeds, controls=controls, margin=margin, engine=engine)
    (verdict,) = done.verdicts
    against = {comparison.against: comparison for comparison in verdict.controls}
    found = tuple(Checked(name, against.get(name), why[name]) for name in checks)
    return Study(done.results, (), sanity=(Sanity(verdict.subject, verdict.density, verdict.seeds, found),))
