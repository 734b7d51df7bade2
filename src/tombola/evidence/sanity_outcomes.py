"""Sanity checks: does a ticket get worse if what its search should have used is destroyed?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tombola.evidence.arms import control_kind
from tombola.evidence.statistics import Comparison, Outcome
from tombola.registry import CONTROLS

Finding = Literal["passes", "fails", "undecided", "does not apply"]

CHECKS = tuple(name for name, entry in CONTROLS.entries.items() if entry.matters)
"""The controls that are sanity checks: those whose entries say what passing them means, as well as failing them."""

FINDINGS: Mapping[Outcome, Finding] = {
    "better": "passes",
    "worse": "fails",
    "equivalent": "fails",
    "not better": "fails",
    "not worse": "undecided",
    "undecided": "undecided",
}


@dataclass(frozen=True)
class Checked:
    """The outcome of one check.

    Args:
        check: the name of its control.
        comparison: the ticket minus the control; None where the check does not apply.
        why: why it does not apply, "" where it does.

    Examples:
        >>> Checked("inverted", None, "needs scores of the untrained network").finding
        'does not apply'
    """

    check: str
    comparison: Comparison | None
    why: str = ""

    @property
    def finding(self) -> Finding:
        """Passed if the ticket is better than its control, failed if it is equivalent to it or worse."""
        return "does not apply" if self.comparison is None else FINDINGS[self.comparison.outcome]

    @property
    def meaning(self) -> str:
        """The finding in plain words."""
        entry = CONTROLS.entry(control_kind(self.check))
        meanings = {
            "passes": entry.matters,
            "fails": entry.means,
            "undecided": "these seeds cannot tell",
            "does not apply": self.why,
        }
        return meanings[self.finding]


@dataclass(frozen=True)
class Sanity:
    """Which sanity checks the tickets of a method pass at one density.

    Args:
        subject: what the method is called.
        density: the kept share of units, in (0, 1].
        seeds: the seeds that the arms were compared over.
        checks: the outcome of each check.
    """

    subject: str
    density: float
    seeds: tuple[int, ...]
    checks: tuple[Checked, ...]

    def to_json(self) -> dict[str, Any]:
        checks = {
            checked.check: {
                "finding": checked.finding,
                "meaning": checked.meaning,
                "comparison": asdict(checked.comparison) if checked.comparison else None,
            }
            for checked in self.checks
        }
        return {"method": self.subject, "density": self.density, "seeds": list(self.seeds), "checks": checks}

    @property
    def summary(self) -> str:
        """What was found, in plain words."""
        decided = [checked for checked in self.checks if checked.finding in ("passes", "fails")]
        parts = [f"{checked.finding} {checked.check} ({checked.meaning})" for checked in decided]
        open_checks: dict[str, list[str]] = {}
        for checked in self.checks:
            if checked not in decided:
                open_checks.setdefault(checked.why or checked.finding, []).append(checked.check)
        parts += [f"{reason}: {', '.join(checks)}" for reason, checks in open_checks.items()]
        return f"{self.subject} at {self.density:.4g}: {'; '.join(parts)}"
