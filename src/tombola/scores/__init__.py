"""Scores say how much each weight, filter or residual block is worth; larger = keep. They leave the model unchanged."""

from tombola.registry import SCORES
from tombola.scores.block_scores import RELUS, FeatureSimilarity, FrontToBack, OutputDivergence, RandomBlocks, cka
from tombola.scores.data_free_scores import BatchNormScale, Magnitude, Random, SynFlow
from tombola.scores.evaluation import UnusedWarning, batch_size, check_real, untouched
from tombola.scores.feature_scores import ExpectedActivation, FeatureRank, ProjectedImportance
from tombola.scores.gates import Accumulate, gate_importance
from tombola.scores.gradient_scores import Grasp, GraspFirstOrder, Snip, SquaredGradient, Taylor
from tombola.scores.kinds import BlockScore, GatheredScore, GradientScore, UnitScore, WeightScore, check_goes_with
from tombola.scores.movement_score import Movement
from tombola.scores.pairs import Target, is_dataset, paired
from tombola.scores.prospr_score import ProsPr
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
    check_takes,
    checked_batch,
    forward,
    needs_training,
    probe_of,
    suited,
)
from tombola.scores.unit_sums import as_summed
from tombola.scores.wanda_score import Wanda
from tombola.scores.weight_gradient_score import WeightGradient

random = Random()
magnitude = Magnitude()
snip = Snip()
grasp = Grasp()
grasp_first_order = GraspFirstOrder()
synflow = SynFlow()
squared_gradient = SquaredGradient()
taylor = Taylor()
prospr = ProsPr()
wanda = Wanda()
weight_gradient = WeightGradient()

__all__ = [
    "RELUS",
    "SCORES",
    "Accumulate",
    "Batch",
    "BatchNormScale",
    "Batches",
    "BlockScore",
    "Called",
    "ExpectedActivation",
    "FeatureRank",
    "FeatureSimilarity",
    "Forward",
    "FrontToBack",
    "GatheredScore",
    "GradientScore",
    "Grasp",
    "GraspFirstOrder",
    "Inputs",
    "Loss",
    "Magnitude",
    "Movement",
    "OutputDivergence",
    "ProjectedImportance",
    "ProsPr",
    "Random",
    "RandomBlocks",
    "Score",
    "Scores",
    "Snip",
    "SquaredGradient",
    "SynFlow",
    "Target",
    "Taylor",
    "TrainingScore",
    "UnitScore",
    "UnusedWarning",
    "View",
    "Wanda",
    "WeightGradient",
    "WeightScore",
    "as_summed",
    "batch_size",
    "check_goes_with",
    "check_real",
    "check_takes",
    "checked_batch",
    "cka",
    "forward",
    "gate_importance",
    "grasp",
    "grasp_first_order",
    "is_dataset",
    "magnitude",
    "needs_training",
    "paired",
    "probe_of",
    "prospr",
    "random",
    "snip",
    "squared_gradient",
    "suited",
    "synflow",
    "taylor",
    "untouched",
    "wanda",
    "weight_gradient",
]
