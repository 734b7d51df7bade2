"""Many networks of one architecture, trained at once."""

from tombola.training.ensemble.member import Member
from tombola.training.ensemble.together import train_together

__all__ = ["Member", "train_together"]
