"""How a broken law is reported."""

from __future__ import annotations


class LawBroken(AssertionError):
    """A score or method does not keep a law; says which, and what was seen."""

    def __init__(self, law: str, seen: str) -> None:
        super().__init__(f"law '{law}' is broken: {seen}")
        self.law = law


def law(name: str, holds: bool, seen: str) -> None:
    """Raise LawBroken unless it holds."""
    if not holds:
        raise LawBroken(name, seen)
