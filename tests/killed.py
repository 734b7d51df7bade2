"""A training that is killed in the middle."""

from __future__ import annotations

from tombola.training import Observer


class Kill(Observer):
    """Ends training after so many steps, as a kill does."""

    def __init__(self, after: int) -> None:
        self.left = after

    def after_step(self, state):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt  # no `except Exception` stops it
