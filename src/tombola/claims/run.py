"""Measuring a claim: its runs through the engine, the records that spare some of them, the outcome."""

from __future__ import annotations

from pathlib import Path

from tombola.claims.claim import Claim, Level
from tombola.claims.outcome import Report, judge
from tombola.claims.records import load_records, save_records
from tombola.studies import Engine, execute


def measure(
    claim: Claim, level: Level, engine: Engine, *, records: Path | None = None, data_dir: Path | None = None
) -> Report:
    """Carry out the runs of a claim's protocol that are not done yet, seed by seed, and judge.

    records: a file of finished runs that is read before and, where all runs are done, written after; a record counts
    for a run of the same settings (network, data, recipe, precision, threads and device among them).
    """
    plan = claim.protocols[level].specs(data_dir)
    if records is not None and not engine.fresh:
        engine.store.adopt(load_records(records))
    results = execute([spec for seed in zip(*plan.values(), strict=True) for spec in seed], engine)
    arms = {name: results[index :: len(plan)] for index, name in enumerate(plan)}
    if records is not None:
        save_records(records, results)
    return judge(claim.expected_of(level), arms, claim.margin)
