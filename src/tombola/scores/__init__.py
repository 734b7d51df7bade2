"""Scores: how much is each weight, or residual block, worth? Pure functions; larger = keep."""

from tombola.scores.blocks import FeatureSimilarity, FrontToBack, OutputDivergence, RandomBlocks, cka
from tombola.scores.data_free import BatchNormScale, Magnitude, Random, SynFlow
from tombola.scores.evaluate import batch_size
from tombola.scores.features import ExpectedActivation, FeatureRank, ProjectedImportance
from tombola.scores.gradient import Grasp, GraspFirstOrder, Snip
from tombola.scores.types import (
    Batch,
    Batches,
    Called,
    Forward,
    Inputs,
    Loss,
    Score,
    Scores,
    TrainingScore,
    View,
    forward,
    needs_training,
    probe_of,
    suited,
)
from tombola.scores.weight_gradient import ScoreWarning, WeightGradient

random = Random()
magnitude = Magnitude()
snip = Snip()
grasp = Grasp()
grasp_first_order = GraspFirstOrder()
synflow = SynFlow()
weight_gradient = WeightGradient()

SCORES: dict[str, Score] = {
    score.name: score for score in (random, magnitude, snip, grasp, grasp_first_order, synflow, weight_gradient)
}
BLOCK_SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        RandomBlocks(),
        FrontToBack(),
        ExpectedActivation(),
        FeatureRank(),
        ProjectedImportance(),
        OutputDivergence(),
        FeatureSimilarity(),
    )
}
"""Scores of residual blocks by name; they go with the granularity of blocks alone."""

__all__ = [
    "BLOCK_SCORES",
    "SCORES",
    "Batch",
    "BatchNormScale",
    "Batches",
    "Called",
    "ExpectedActivation",
    "FeatureRank",
    "FeatureSimilarity",
    "Forward",
    "FrontToBack",
    "Grasp",
    "GraspFirstOrder",
    "Inputs",
    "Loss",
    "Magnitude",
    "OutputDivergence",
    "ProjectedImportance",
    "Random",
    "RandomBlocks",
    "Score",
    "ScoreWarning",
    "Scores",
    "Snip",
    "SynFlow",
    "TrainingScore",
    "View",
    "WeightGradient",
    "batch_size",
    "cka",
    "forward",
    "grasp",
    "grasp_first_order",
    "magnitude",
    "needs_training",
    "probe_of",
    "random",
    "snip",
    "suited",
    "synflow",
    "weight_gradient",
]
