"""Training: the task, the recipe, the one loop, its observers, checkpoints and cost ledger."""

from tombola.training.batches import MemoryBatches, move, pick
from tombola.training.checkpoint import is_stage_file, remove_stages
from tombola.training.cost import Cost, SampleFlops, train_samples
from tombola.training.data_identity import DataWarning
from tombola.training.divergence import Diverged
from tombola.training.energy import Meter
from tombola.training.ensemble import Member, train_together
from tombola.training.identities import data_digest, fingerprint, identity, task_identity, unwrap
from tombola.training.legacy import as_first_written, upgraded
from tombola.training.loop import Fit, autocast, evaluate, fit, length_of
from tombola.training.memory import peak_memory, reset_peak_memory, step_memory
from tombola.training.observers import GatheredScores, Observer, Snapshot, State, Until, gather_scores
from tombola.training.own_optimizer import ByEpoch
from tombola.training.progress import Bars, bars
from tombola.training.randomness import mixed, own_randomness
from tombola.training.recipe import Recipe
from tombola.training.run import Run, seed_of
from tombola.training.step import Step
from tombola.training.task import (
    Split,
    SupervisedTask,
    Task,
    TaskWrapper,
    accuracy,
    as_outputs,
    binary_accuracy,
    binary_cross_entropy,
    check_classes,
    half_squared_error,
    with_recipe,
)
from tombola.training.ticket_training import Trained, epochs_spent, recipe_of, share_of_work, start_of, train

__all__ = [
    "Bars",
    "ByEpoch",
    "Cost",
    "DataWarning",
    "Diverged",
    "Fit",
    "GatheredScores",
    "Member",
    "MemoryBatches",
    "Meter",
    "Observer",
    "Recipe",
    "Run",
    "SampleFlops",
    "Snapshot",
    "Split",
    "State",
    "Step",
    "SupervisedTask",
    "Task",
    "TaskWrapper",
    "Trained",
    "Until",
    "accuracy",
    "as_first_written",
    "as_outputs",
    "autocast",
    "bars",
    "binary_accuracy",
    "binary_cross_entropy",
    "check_classes",
    "data_digest",
    "epochs_spent",
    "evaluate",
    "fingerprint",
    "fit",
    "gather_scores",
    "half_squared_error",
    "identity",
    "is_stage_file",
    "length_of",
    "mixed",
    "move",
    "own_randomness",
    "peak_memory",
    "pick",
    "recipe_of",
    "remove_stages",
    "reset_peak_memory",
    "seed_of",
    "share_of_work",
    "start_of",
    "step_memory",
    "task_identity",
    "train",
    "train_samples",
    "train_together",
    "unwrap",
    "upgraded",
    "with_recipe",
]
