"""How a broken law is reported."""

from __future__ import annotations


class LawBroken(AssertionError):
    """A score or method breaks a law.

    Args:
        law: the name of the law.
        observation: what shows that it is broken.

    Examples:
        >>> str(LawBroken("pure", "gradients were changed"))
        "law 'pure' is broken: gradients were changed"
    """

    def __init__(self, law: str, observation: str) -> None:
        super().__init__(f"law '{law}' is broken: {observation}")
        self.law = law


def law(name: str, holds: bool, observation: str) -> None:
    """Raise LawBroken unless the law holds."""
    if not holds:
        raise LawBroken(name, observation)
