"""Ensembles: many networks of one architecture that train at once."""

from tombola.training.ensemble.ensemble_training import chunk_size, fit_members, groups_alike, pieces, train_together
from tombola.training.ensemble.member import Member
from tombola.training.ensemble.stack import Unbatched, stacking_obstacle

__all__ = [
    "Member",
    "Unbatched",
    "chunk_size",
    "fit_members",
    "groups_alike",
    "pieces",
    "stacking_obstacle",
    "train_together",
]
