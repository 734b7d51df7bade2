"""Many networks of one architecture, trained at once."""

from tombola.training.ensemble.member import Member
from tombola.training.ensemble.stack import Unbatched, obstacle
from tombola.training.ensemble.together import alike, chunk_size, fit_members, pieces, train_together

__all__ = ["Member", "Unbatched", "alike", "chunk_size", "fit_members", "obstacle", "pieces", "train_together"]
