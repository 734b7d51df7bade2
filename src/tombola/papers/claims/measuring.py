"""Measuring a claim: its runs through the engine, the records that spare some of them, the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tombola.errors import TombolaError
from tombola.papers.claims.claim import Claim, Level, Protocol
from tombola.papers.claims.claim_outcome import ClaimReport, judge_claim
from tombola.papers.claims.claim_records import load_records, save_records
from tombola.papers.claims.measurement import Measurement
from tombola.studies import Engine, Result, RunSpec, execute
from tombola.training import with_recipe


def measure(
    claim: Claim, level: Level, engine: Engine, *, records: Path | None = None, data_dir: Path | None = None
) -> ClaimReport:
    """Carry out the runs of a claim's protocol that are not done yet, seed by seed, and judge.

    records: a file of finished runs that is read before and, where all runs are done, written after; a record counts
    for a run that is the same one (network, data, recipe and precision among what it is).
    """
    protocol = claim.protocols[level]
    if isinstance(protocol, Measurement):
        taken = protocol.carry_out(engine, records, data_dir)
        return judge_claim(claim.expected_of(level), protocol.figures(taken), protocol.units)
    if protocol.metered and engine.executor.meter is None and not (records is not None and records.exists()):
        raise TombolaError(f"the claim {claim.id} is about energy too; say on which country's grid, as --country DEU")
    specs = specs_of(protocol, data_dir)
    if records is not None and not engine.store.fresh:
        known = load_records(records)
        engine.store.adopt(known)
        specs = as_on_record(specs, known)
    results = execute(specs, engine.store, engine.executor)
    if records is not None:
        save_records(records, results)
    return judge_claim(claim.expected_of(level), arms_of(protocol, results), protocol.units)


def specs_of(protocol: Protocol, data_dir: Path | None = None) -> list[RunSpec]:
    """All runs of a protocol, seed by seed; the data is read here, so TombolaError where it is missing."""
    plan = protocol.specs(data_dir)
    return [line[seed] for seed in range(protocol.seeds) for own in plan.values() for line in own]


def as_on_record(specs: Sequence[RunSpec], records: Sequence[Result]) -> list[RunSpec]:
    """The runs in the precision that `auto` came to when the claim was first measured, whatever it is here."""
    precisions = {result.settings.get("precision") for result in records}
    task = specs[0].task
    if task.recipe.precision != "auto" or len(precisions) != 1:
        return list(specs)
    (precision,) = precisions
    known = with_recipe(task, replace(task.recipe, precision=precision))
    return [replace(spec, task=known) for spec in specs]


def arms_of(protocol: Protocol, results: Sequence[Result]) -> dict[str, list[Result]]:
    """Each arm's runs by seed, from all runs in the order of the protocol, seed by seed."""
    lines = [name for name, arm in protocol.arms.items() for _ in arm.lrs]
    runs = [results[at :: len(lines)] for at in range(len(lines))]
    return {
        name: [
            replace(result, metric=arm.measured(result))
            for result in _best([own for line, own in zip(lines, runs, strict=True) if line == name])
        ]
        for name, arm in protocol.arms.items()
    }


def _best(lines: Sequence[Sequence[Result]]) -> Sequence[Result]:
    """The runs at the learning rate with the best mean accuracy on the validation split."""
    return max(lines, key=lambda line: sum(result.validation for result in line))
