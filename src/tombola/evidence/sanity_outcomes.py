"""Sanity checks: does it harm a ticket if what its search should have used is destroyed?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tombola.evidence.arms import control_kind
from tombola.evidence.statistics import Comparison, Outcome
from tombola.fields import known_fields
from tombola.registry import CONTROLS

Finding = Literal["passes", "fails", "undecided", "does not apply"]

CHECKS = tuple(name for name, entry in CONTROLS.entries.items() if entry.matters)
"""The controls that are sanity checks: their entries say what it means where one is passed, and where it is failed."""

FINDINGS: Mapping[Outcome, Finding] = {
    "better": "passes",
    "worse": "fails",
    "equivalent": "fails",
    "undecided": "undecided",
}


@dataclass(frozen=True)
class Checked:
    """What one check came to: the ticket compared with its control, or why there is none."""

    check: str
    comparison: Comparison | None
    why: str = ""

    @staticmethod
    def of(content: dict[str, Any]) -> Checked:
        """A check from what JSON made of it; what a newer version adds is left out."""
        typed = known_fields(Checked, content)
        typed["comparison"] = Comparison.of(typed["comparison"]) if typed["comparison"] else None
        return Checked(**typed)

    @property
    def finding(self) -> Finding:
        """Passed if the ticket is better than its control, failed if it is equivalent or worse."""
        return "does not apply" if self.comparison is None else FINDINGS[self.comparison.outcome]

    @property
    def meaning(self) -> str:
        """The finding in plain words."""
        entry = CONTROLS.entry(control_kind(self.check))
        says = {
            "passes": entry.matters,
            "fails": entry.means,
            "undecided": "these seeds cannot tell",
            "does not apply": self.why,
        }
        return says[self.finding]


@dataclass(frozen=True)
class Sanity:
    """Which sanity checks the tickets of a method pass at one density, over these seeds."""

    subject: str
    density: float
    seeds: tuple[int, ...]
    checks: tuple[Checked, ...]

    @staticmethod
    def of(content: dict[str, Any]) -> Sanity:
        """The checks from what JSON made of them; what a newer version adds is left out."""
        typed = known_fields(Sanity, content)
        typed |= {"seeds": tuple(typed["seeds"]), "checks": tuple(Checked.of(own) for own in typed["checks"])}
        return Sanity(**typed)

    def to_json(self) -> dict[str, Any]:
        checks = {
            own.check: {
                "finding": own.finding,
                "meaning": own.meaning,
                "comparison": asdict(own.comparison) if own.comparison else None,
            }
            for own in self.checks
        }
        return {"method": self.subject, "density": self.density, "seeds": list(self.seeds), "checks": checks}

    @property
    def summary(self) -> str:
        """What was found, in plain words."""
        told = [own for own in self.checks if own.finding in ("passes", "fails")]
        parts = [f"{own.finding} {own.check} ({own.meaning})" for own in told]
        rest: dict[str, list[str]] = {}
        for own in self.checks:
            if own not in told:
                rest.setdefault(own.why or own.finding, []).append(own.check)
        parts += [f"{what}: {', '.join(checks)}" for what, checks in rest.items()]
        return f"{self.subject} at {self.density:.4g}: {'; '.join(parts)}"
