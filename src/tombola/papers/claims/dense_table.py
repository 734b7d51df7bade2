"""What each method's tickets lose on the dense network, wherever a claim's runs have both: made from the records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean

from tombola.evidence import minus
from tombola.papers.claims.claim import Claim, ClaimArm, Protocol, after_training
from tombola.papers.claims.claim_outcome import ClaimReport
from tombola.registry import METHODS
from tombola.studies import Result

ROUNDS = re.compile(r"\((share|count)=[\d.]+\)")
"""How a result's label says in how many rounds a method came to its density, which it may without being another."""


@dataclass(frozen=True)
class BesideDense:
    """One method's tickets at one density, beside the dense network of the same seeds.

    Args:
        method: its name in the registry.
        density: the share of the weights that they keep.
        points: the mean of their metric less the dense network's, in points.
        task: network and data.
        claim: whose runs they are.
    """

    method: str
    density: float
    points: float
    task: str
    claim: str


def beside_dense(claims: Mapping[str, Claim], reports: Mapping[str, ClaimReport | None]) -> Iterator[BesideDense]:
    """Every arm of tickets as the registry's methods find them, where the dense network trained beside it."""
    for name, claim in claims.items():
        protocol, report = claim.protocols["standard"], reports[name]
        if report is None or not isinstance(protocol, Protocol) or claim.beyond or "dense" not in report.arms:
            continue
        dense = fmean(own.metric for own in report.arms["dense"])
        task = f"{protocol.task.model} on {protocol.task.data}"
        for arm, how in protocol.arms.items():
            runs = [own for own in report.arms[arm] if isinstance(own, Result)]
            method = ROUNDS.sub("", runs[0].method) if runs else ""
            if method in METHODS and _plain(how):
                points = 100 * (fmean(own.metric for own in runs) - dense)
                yield BesideDense(method, runs[0].weight_density, points, task, name)


def _plain(arm: ClaimArm) -> bool:
    """Whether an arm trains a method's own tickets by the task's recipe, and its metric counts."""
    own = not arm.control and not arm.recipe and len(arm.variants) == 1 and not arm.extra_epochs
    return own and arm.method is not None and arm.measured is after_training


def dense_table(rows: Iterable[BesideDense]) -> str:
    """The rows as a Markdown table with one line a method, in the registry's order."""
    by_method: dict[str, list[BesideDense]] = {}
    for row in rows:
        by_method.setdefault(row.method, []).append(row)
    lines = [
        f"| `{name}` | {METHODS.entry(name).cost} | {_told(own)} |"
        for name, own in sorted(by_method.items(), key=lambda item: list(METHODS).index(item[0]))
    ]
    return "\n".join(
        ("| method | its search costs | points against the dense network |", "| --- | --- | --- |", *lines)
    )


def _told(rows: list[BesideDense]) -> str:
    by_claim: dict[str, list[BesideDense]] = {}
    for row in rows:
        by_claim.setdefault(row.claim, []).append(row)
    return "; ".join(
        f"[{own[0].task}]({claim}.md): "
        + ", ".join(f"{minus(f'{row.points:+.1f}')} at {100 * row.density:.2g} %" for row in own)
        for claim, own in by_claim.items()
    )
