"""Scores: how much is each weight worth? Pure functions; larger = keep."""

from tombola.scores.data_free import BatchNormScale, Magnitude, Random, SynFlow
from tombola.scores.evaluate import batch_size
from tombola.scores.gradient import Grasp, GraspFirstOrder, Snip
from tombola.scores.types import Batch, Batches, Called, Forward, Inputs, Loss, Score, Scores, View, forward, suited

random = Random()
magnitude = Magnitude()
snip = Snip()
grasp = Grasp()
grasp_first_order = GraspFirstOrder()
synflow = SynFlow()

SCORES: dict[str, Score] = {score.name: score for score in (random, magnitude, snip, grasp, grasp_first_order, synflow)}

__all__ = [
    "SCORES",
    "Batch",
    "BatchNormScale",
    "Batches",
    "Called",
    "Forward",
    "Grasp",
    "GraspFirstOrder",
    "Inputs",
    "Loss",
    "Magnitude",
    "Random",
    "Score",
    "Scores",
    "Snip",
    "SynFlow",
    "View",
    "batch_size",
    "forward",
    "grasp",
    "grasp_first_order",
    "magnitude",
    "random",
    "snip",
    "suited",
    "synflow",
]
