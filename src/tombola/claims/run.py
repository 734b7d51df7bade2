"""Measuring a claim: its runs through the engine, the records that spare some of them, the outcome."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tombola.claims.claim import Claim, ClaimArm, Level
from tombola.claims.outcome import Report, judge
from tombola.claims.records import load_records, save_records
from tombola.studies import Engine, Result, execute


def measure(
    claim: Claim, level: Level, engine: Engine, *, records: Path | None = None, data_dir: Path | None = None
) -> Report:
    """Carry out the runs of a claim's protocol that are not done yet, seed by seed, and judge.

    records: a file of finished runs that is read before and, where all runs are done, written after; a record counts
    for a run of the same settings (network, data, recipe, precision, threads and device among them).
    """
    plan, seeds = claim.protocols[level].specs(data_dir), claim.protocols[level].seeds
    if records is not None and not engine.fresh:
        engine.store.adopt(load_records(records))
    lines = [(name, index) for name, own in plan.items() for index in range(len(own))]
    results = execute([plan[name][index][seed] for seed in range(seeds) for name, index in lines], engine)
    runs = {line: results[at :: len(lines)] for at, line in enumerate(lines)}
    arms = {
        name: [_measured(result, arm) for result in _best([runs[name, index] for index in range(len(plan[name]))])]
        for name, arm in claim.protocols[level].arms.items()
    }
    if records is not None:
        save_records(records, results)
    return judge(claim.expected_of(level), arms, claim.margin)


def _best(lines: list[list[Result]]) -> list[Result]:
    """The runs at the learning rate with the best mean accuracy on the validation split."""
    return max(lines, key=lambda line: sum(result.validation for result in line))


def _measured(result: Result, arm: ClaimArm) -> Result:
    return replace(result, metric=arm.measured(result))
