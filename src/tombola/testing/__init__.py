"""For third parties: check that a score or a method keeps Tombola's laws."""

from tombola.testing.laws import LawBroken
from tombola.testing.method import check_method
from tombola.testing.score import check_score
from tombola.testing.toys import toy_network, toy_task

__all__ = ["LawBroken", "check_method", "check_score", "toy_network", "toy_task"]
