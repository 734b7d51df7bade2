"""A method by a name."""

from __future__ import annotations

from dataclasses import dataclass

from tombola.methods.contract import Method


@dataclass(frozen=True)
class Preset:
    """A named method: its settings, its paper, what it does in one line, and what its search costs."""

    method: Method
    paper: str
    summary: str
    cost: str

    @property
    def granularity(self) -> str:
        return self.method.granularity.name
