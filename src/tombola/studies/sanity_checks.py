"""Sanity checks of methods: each method against the controls that are its checks."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tombola.errors import TombolaError, unknown
from tombola.evidence import CHECKS, Better, Checked, Measure, Sanity, control_kind, control_obstacle
from tombola.methods import Method
from tombola.studies.comparison import Study, compare, labelled
from tombola.studies.executor import Engine, Serial
from tombola.studies.store import Store
from tombola.training import Task, agreed_device, bars


def sanity(
    task: Task,
    methods: Sequence[Method] | Mapping[str, Method],
    *,
    checks: Sequence[str] = (),
    seeds: int = 3,
    margin: float | None = None,
    measure: Measure | Better | None = None,
    device: torch.device | str = "auto",
    engine: Engine | None = None,
) -> Study:
    """Find out which sanity checks methods pass (Su et al., NeurIPS 2020; Frankle et al., ICLR 2021).

    Args:
        task: what is learnt.
        methods: the methods, or methods by label; each searches anew for each seed.
        checks: controls that are sanity checks; all that apply to a method if none is named.
        seeds: how many seeds, from 0 on.
        margin: a smaller difference counts as none, in the metric's unit; the measure's own if None.
        measure: what the task's metric is; or which of its values are better, "lower" or "higher"; as `compare` has it.
        device: where networks train: the engine's, or without an engine CUDA if there is one, else the CPU; or one of
            your choice, as `cuda:1`.
        engine: where results are kept and what carries runs out; here, with nothing kept, if None.

    Returns:
        A study with the runs, and in `sanity` the outcome of each method.

    Raises:
        TombolaError: if there is no such check, or one applies to none of the methods.

    Examples:
        >>> from tombola.methods import OneShot
        >>> from tombola.testing import toy_task
        >>> study = sanity(toy_task(epochs=1), [OneShot(density=0.2)], checks=["shuffle"], seeds=2)
        >>> [checked.check for checked in study.sanity[0].checks]
        ['shuffle']
    """
    device = agreed_device(device, None if engine is None else engine.executor.device, "engine")
    if engine is None:
        with tempfile.TemporaryDirectory(prefix="tombola-") as folder, bars() as shown:
            engine = Engine(Store(Path(folder)), Serial(device, bars=shown))
            return sanity(task, methods, checks=checks, seeds=seeds, margin=margin, measure=measure, engine=engine)
    named = labelled(methods)
    for name in checks:
        if control_kind(name) not in CHECKS:
            raise unknown("check", name, CHECKS)
        obstacles = [control_obstacle(name, method) for _, method in named]
        if all(obstacles):
            raise TombolaError(f"the check '{name}' {obstacles[0]}; leave it out")
    how = {"seeds": seeds, "margin": margin, "measure": measure, "engine": engine}
    studies = [_checked(task, label, method, checks or CHECKS, how) for label, method in named]
    results = {result.digest: result for study in studies for result in study.results}  # methods share the dense runs
    return Study(tuple(results.values()), (), sanity=tuple(outcome for study in studies for outcome in study.sanity))


def _checked(task: Task, label: str, method: Method, checks: Sequence[str], how: Mapping[str, Any]) -> Study:
    """One method with the checks that apply to it."""
    obstacles = {name: control_obstacle(name, method) for name in checks}
    controls = [name for name in checks if not obstacles[name]]
    study = compare(task, {label: method}, controls=controls, **how)
    (verdict,) = study.verdicts
    against = {comparison.against: comparison for comparison in verdict.controls}
    outcomes = tuple(Checked(name, against.get(name), obstacles[name]) for name in checks)
    return Study(study.results, (), sanity=(Sanity(verdict.subject, verdict.density, verdict.seeds, outcomes),))
