"""tombola claims [ID…]: list papers' claims, or measure them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tombola.cli.console import console, print_json
from tombola.cli.output import RunOptions, engine
from tombola.cli.parse import parse
from tombola.cli.subjects import first_words
from tombola.errors import TombolaError, unknown
from tombola.papers.claims import (
    CLAIMS,
    LEVELS,
    ClaimReport,
    Judged,
    Level,
    answer_of,
    check_claim_place,
    check_index_place,
    claim_table,
    measure,
    on_record,
    price_list,
    write_claim,
    write_index,
)
from tombola.terminal_table import Column, TerminalTable


@dataclass(frozen=True)
class ClaimsOptions:
    """Measure claims of papers again and say whether they hold; without an ID, list the claims.

    Each ID names one claim, and `all` names them all. Each claim's page and records are written to a folder.
    """

    quick: bool = False
    """measure in a few minutes, to see that it works; the outcome decides nothing"""
    full: bool = False
    """measure at the paper's own size, which takes days without a GPU"""
    dry_run: bool = False
    """list what would run and what it would cost, and start nothing; no data is read"""
    pages: bool = False
    """write all pages and their list again from the records, and start nothing"""
    data_dir: Path | None = None
    """folder of the data sets' files; the usual place if not given"""
    records: Path = Path("docs/claims")
    """folder of the claims' pages and records; runs that it records are not repeated"""
    out: Path = Path("runs/claims")
    """folder of the runs; with --quick or --full, of the pages and records too"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    ids, rest = first_words(words)
    options = parse("claims [ID…]", rest, ClaimsOptions.__doc__, claims=ClaimsOptions(), run=RunOptions())
    for claim in ids:
        if claim not in CLAIMS and claim != "all":
            raise unknown("claim", claim, [*CLAIMS, "all"])
    if options.claims.quick and options.claims.full:
        raise TombolaError("--quick and --full exclude each other; give one of them")
    if options.claims.pages and (ids or options.claims.dry_run or options.claims.quick or options.claims.full):
        raise TombolaError("--pages writes the pages of all claims from their records; give it alone")
    level: Level = "quick" if options.claims.quick else "full" if options.claims.full else "standard"
    chosen = list(CLAIMS) if "all" in ids else ids
    if options.claims.pages:
        return _pages(options.claims, options.run.json)
    if options.claims.dry_run:
        return _price(chosen or list(CLAIMS), level, options.run.json)
    return _measure(chosen, level, options.claims, options.run) if ids else _list(options.run.json)


def _pages(claims: ClaimsOptions, as_json: bool) -> int:
    """Write every page from the records that are there."""
    check_index_place(claims.records)
    for claim in CLAIMS.values():
        check_claim_place(claim, claims.records)
    reports = {name: on_record(claim, claims.records / f"{name}.jsonl") for name, claim in CLAIMS.items()}
    for name, claim in CLAIMS.items():
        write_claim(claim, "standard", reports[name], claims.records)
    index = write_index(CLAIMS, reports, claims.records)
    if as_json:
        print_json({"claims": {name: answer_of(claim, reports[name]) for name, claim in CLAIMS.items()}})
    else:
        console().print(f"{len(CLAIMS)} pages, and the list of them: {index}")
    return 0


def _price(ids: Sequence[str], level: Level, as_json: bool) -> int:
    """List what would run, and what it would cost."""
    quotes = price_list([CLAIMS[name] for name in ids], level)
    if as_json:
        print_json({"claims": [asdict(own) | {"hours": own.hours} for own in quotes]})
        return 0
    heads = ("trainings", "hours on two cores", "hours on one GPU")
    table = TerminalTable(
        (Column("claim", left=True), *map(Column, heads), Column("as its file says", drop=1, left=True, least=16))
    )
    for own in quotes:
        numbers = (own.trainings, *own.hours)
        table.add(own.claim, *("" if value is None else f"{value:,.3g}" for value in numbers), _in_words(own.words))
    known = [own.hours for own in quotes if own.hours[0] is not None]
    cores, gpu = (sum(pair[place] or 0.0 for pair in known) for place in (0, 1))
    console().print(table)
    cores, gpu = (f"{hours:,.0f}" if hours >= 10 else f"{hours:,.2g}" for hours in (cores, gpu))
    told = f"About {cores} hours on two cores, or {gpu} on one GPU; small networks take longer than their FLOPs say. "
    if len(known) < len(quotes):
        told += (
            f"The last column alone prices {len(quotes) - len(known)}, whose FLOPs depend on data that are not read. "
        )
    console().print(f"{told}Nothing was started.")
    return 0


def _in_words(price: str) -> str:
    return f"{price} minutes" if price.isdecimal() else price


def _list(as_json: bool) -> int:
    rows = [
        {
            "id": claim.id,
            "title": claim.title,
            "source": claim.source,
            "minutes": {level: claim.protocols[level].minutes for level in LEVELS},
            "runs": claim.protocols["standard"].runs,
        }
        for claim in CLAIMS.values()
    ]
    if as_json:
        print_json({"claims": rows})
        return 0
    table = TerminalTable(
        (
            Column("claim", left=True),
            Column("what it says", left=True, least=36),
            Column("minutes", drop=1),
            Column("with --quick", drop=2),
            Column("source", drop=3, left=True, least=24),
        )
    )
    for claim in CLAIMS.values():
        protocols = claim.protocols
        minutes = (protocols[level].minutes for level in ("standard", "quick"))
        table.add(claim.id, claim.title, *minutes, claim.source)
    console().print(table)
    console().print("Measure one: tombola claims ID; all of them: tombola claims all")
    return 0


def _measure(ids: Sequence[str], level: Level, claims: ClaimsOptions, options: RunOptions) -> int:
    reports: dict[str, ClaimReport] = {}
    records = claims.records if level == "standard" else claims.out / level
    for name in ids:
        check_claim_place(CLAIMS[name], records)
    with engine(options, claims.out) as runner:
        for name in ids:
            reports[name] = measure(
                CLAIMS[name], level, runner, records=records / f"{name}.jsonl", data_dir=claims.data_dir
            )
            write_claim(CLAIMS[name], level, reports[name], records)
            if not options.json:
                console().print(claim_table(CLAIMS[name], reports[name]))
                console().print(f"{reports[name].sentence}\nPage: {records / f'{name}.md'}")
    if options.json:
        content = {
            name: {
                "outcome": report.outcome,
                "answer": answer_of(CLAIMS[name], report),
                "sentence": report.sentence,
                "level": level,
                "expected": [_expected(row) for row in report.rows],
                "arms": {arm: [result.metric for result in results] for arm, results in report.arms.items()},
            }
            for name, report in reports.items()
        }
        print_json({"claims": content})
    return 0


def _expected(row: Judged) -> dict[str, object]:
    """What one expectation came to, in the figures' own unit."""
    return {
        "expectation": str(row.expected),
        "finding": row.finding,
        "mean": row.difference.mean,
        "low": row.difference.low,
        "high": row.difference.high,
        "bound": row.bound,
        "limit": row.limit,
        "detectable": row.detectable,
        "margin": row.margin,
        "paper": row.paper,
    }
