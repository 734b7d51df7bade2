"""Measure a claim: carry out its runs, except those on record, and judge them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tombola.errors import TombolaError
from tombola.evidence.looks import FIRST
from tombola.papers.claims.claim import Claim, Level, Protocol
from tombola.papers.claims.claim_outcome import ClaimReport, judge_claim
from tombola.papers.claims.claim_records import load_records, save_records
from tombola.papers.claims.measurement import Measurement, load_taken
from tombola.studies import Engine, Result, RunSpec, digest, execute
from tombola.training import with_recipe


def measure(
    claim: Claim, level: Level, engine: Engine, *, records: Path | None = None, data_dir: Path | None = None
) -> ClaimReport:
    """Carry out the runs of a claim's protocol that are not done yet, seed by seed, and judge the claim.

    Args:
        claim: what to measure.
        level: which of its protocols.
        engine: the store of results, and what carries out the runs.
        records: a file of finished runs, read first and written when all runs are done. A record counts for a run if
            the two agree in all that decides a run's outcome: network, data, recipe, precision and so on.
        data_dir: the folder of the data; None for the usual places.

    Raises:
        TombolaError: if the data is missing, or if the claim is about energy and the engine has no meter.
    """
    protocol = claim.protocols[level]
    if isinstance(protocol, Measurement):
        rows = protocol.carry_out(engine, records, data_dir)
        return judge_claim(claim.expected_of(level), protocol.figures(rows), protocol.units)
    if protocol.metered and engine.executor.meter is None and not (records is not None and records.exists()):
        raise TombolaError(f"the claim {claim.id} is about energy too; say on which country's grid, as --country DEU")
    on_record = load_records(records) if records is not None and not engine.store.fresh else []
    engine.store.adopt(on_record)
    specs = as_on_record(specs_of(protocol, data_dir), on_record)
    first = min(FIRST, protocol.seeds) if protocol.sequential else protocol.seeds
    for seeds in range(first, protocol.seeds + 1):
        results = execute(specs[: seeds * len(specs) // protocol.seeds], engine.store, engine.executor)
        if records is not None:
            save_records(records, results)
        report = judge_claim(claim.expected_of(level), arms_of(protocol, results), protocol.units, protocol.looks)
        if report.outcome != "too few seeds":
            break
    return report


def on_record(claim: Claim, records: Path) -> ClaimReport | None:
    """What a claim's records come to, without running anything; None if there are none.

    Args:
        claim: whose standard protocol the records are of.
        records: their file.

    Raises:
        TombolaError: if the file is damaged, or has other runs than the protocol asks for.
    """
    protocol = claim.protocols["standard"]
    if not records.exists():
        return None
    other = TombolaError(
        f"{records} has runs that are not those of the claim's protocol; remove it, or measure the claim again"
    )
    if isinstance(protocol, Measurement):
        rows = load_taken(records)
        if any(digest(row.settings) != digest(protocol.asked) for row in rows):
            raise other
        return judge_claim(claim.expected, protocol.figures(rows), protocol.units)
    results = load_records(records)
    if not results or len(results) % sum(len(arm.variants) for arm in protocol.arms.values()):
        raise other
    arms = arms_of(protocol, results)
    kinds = {name: {(own.control, bool(own.method)) for own in runs} for name, runs in arms.items()}
    if any(kinds[name] != {(arm.control, arm.method is not None)} for name, arm in protocol.arms.items()):
        raise other
    return judge_claim(claim.expected, arms, protocol.units, protocol.looks)


def specs_of(protocol: Protocol, data_dir: Path | None = None) -> list[RunSpec]:
    """All runs of a protocol, seed by seed; the data is read here, so TombolaError if it is missing."""
    plan = protocol.specs(data_dir)
    return [by_seed[seed] for seed in range(protocol.seeds) for by_rate in plan.values() for by_seed in by_rate]


def as_on_record(specs: Sequence[RunSpec], records: Sequence[Result]) -> list[RunSpec]:
    """The runs with the precision of the records where the recipe says "auto", whatever that would be here."""
    precisions = {result.settings.get("precision") for result in records}
    if specs[0].task.recipe.precision != "auto" or len(precisions) != 1:
        return list(specs)
    (precision,) = precisions
    tasks = {id(spec.task): spec.task for spec in specs}
    exact = {key: with_recipe(task, replace(task.recipe, precision=precision)) for key, task in tasks.items()}
    return [replace(spec, task=exact[id(spec.task)]) for spec in specs]


def arms_of(protocol: Protocol, results: Sequence[Result]) -> dict[str, list[Result]]:
    """Sort results into arms, and measure them.

    Args:
        protocol: the arms.
        results: all runs of the protocol, in the order of `specs_of`.

    Returns:
        Each arm's runs by seed, in its best variant. Their metric is what the arm measures.
    """
    names = [name for name, arm in protocol.arms.items() for _ in arm.variants]
    by_rate = [results[place :: len(names)] for place in range(len(names))]
    return {
        name: [
            replace(result, metric=arm.measured(result))
            for result in _best([runs for owner, runs in zip(names, by_rate, strict=True) if owner == name])
        ]
        for name, arm in protocol.arms.items()
    }


def _best(by_rate: Sequence[Sequence[Result]]) -> Sequence[Result]:
    """The runs of the variant with the best mean accuracy on the validation split."""
    return max(by_rate, key=lambda runs: sum(result.validation for result in runs))
