"""Measuring a claim: its runs through the engine, the records that spare some of them, the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tombola.claims.claim import Claim, Level, Protocol
from tombola.claims.measurement import Measurement
from tombola.claims.outcome import Report, judge
from tombola.claims.records import load_records, save_records
from tombola.errors import TombolaError
from tombola.studies import Engine, Result, execute


def measure(
    claim: Claim, level: Level, engine: Engine, *, records: Path | None = None, data_dir: Path | None = None
) -> Report:
    """Carry out the runs of a claim's protocol that are not done yet, seed by seed, and judge.

    records: a file of finished runs that is read before and, where all runs are done, written after; a record counts
    for a run that is the same one (network, data, recipe and precision among what it is).
    """
    protocol = claim.protocols[level]
    if isinstance(protocol, Measurement):
        taken = protocol.carry_out(engine, records, data_dir)
        return judge(claim.expected_of(level), protocol.figures(taken), protocol.units)
    if protocol.metered and engine.executor.meter is None and not (records is not None and records.exists()):
        raise TombolaError(f"the claim {claim.id} is about energy too; say on which country's grid, as --country DEU")
    plan = protocol.specs(data_dir)
    if records is not None and not engine.store.fresh:
        engine.store.adopt(load_records(records))
    specs = [line[seed] for seed in range(protocol.seeds) for own in plan.values() for line in own]
    results = execute(specs, engine.store, engine.executor)
    if records is not None:
        save_records(records, results)
    return judge(claim.expected_of(level), arms_of(protocol, results), protocol.units)


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
