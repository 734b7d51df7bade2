"""How a broken law is reported."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch


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


@contextmanager
def deterministic(device: torch.device) -> Generator[None]:
    """Inside, what runs twice on a GPU gives the same twice, as far as torch can make it so; the CPU always does."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warns)
