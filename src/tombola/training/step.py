"""A point in training, written as "500it" or "10ep"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from tombola.errors import TombolaError


@dataclass(frozen=True)
class Step:
    """A point in training.

    Args:
        count: iterations or epochs since the beginning.
        unit: "it" for iterations (optimizer steps), "ep" for epochs.

    Examples:
        >>> Step.parse("10ep").iterations(steps_per_epoch=391), str(Step(500, "it"))
        (3910, '500it')
    """

    count: int
    unit: Literal["it", "ep"]

    @staticmethod
    def parse(text: str) -> Step:
        """Read "500it" or "10ep".

        Raises:
            TombolaError: for anything else, a bare number included.
        """
        match = re.fullmatch(r"([0-9]{1,12})(it|ep)", text)
        if match is None:
            raise TombolaError(f"'{text}' is not a point in training; write iterations as '500it' or epochs as '10ep'")
        return Step(int(match[1]), "it" if match[2] == "it" else "ep")

    def iterations(self, steps_per_epoch: int) -> int:
        """The point in optimizer steps."""
        return self.count * (steps_per_epoch if self.unit == "ep" else 1)

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"
