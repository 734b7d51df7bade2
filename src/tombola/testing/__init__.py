"""For third parties: checks that a score or a method keeps Tombola's laws, and a table of what goes with what."""

from tombola.testing.compatibility import matrix
from tombola.testing.laws import LawBroken
from tombola.testing.method import check_method
from tombola.testing.score import check_score
from tombola.testing.toys import toy_network, toy_task

__all__ = ["LawBroken", "check_method", "check_score", "matrix", "toy_network", "toy_task"]
