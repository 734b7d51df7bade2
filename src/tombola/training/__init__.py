"""Training: the task, the recipe, the one loop, its observers, checkpoints and cost ledger."""

from tombola.shrinking import flop_counter
from tombola.training.adversarial_task import (
    AdversarialTask,
    adversarial,
    adversary_of,
    with_attack,
    without_attack,
)
from tombola.training.adversary import Adversary, AttackWarning, RobustCheck
from tombola.training.attacked_batches import AttackedBatches
from tombola.training.attacks import Attack, ascended
from tombola.training.auto_attack import Apgd
from tombola.training.batches import MemoryBatches, move, pick
from tombola.training.checkpoint import Checkpoint, is_stage_file, remove_stages
from tombola.training.class_metrics import BalancedAccuracy, MacroF1, Matthews, MeanIoU, PixelAccuracy
from tombola.training.cost import Cost, SampleFlops, train_samples
from tombola.training.devices import agreed_device, chosen_device
from tombola.training.divergence import Diverged
from tombola.training.energy import Meter
from tombola.training.ensemble import Member, train_together
from tombola.training.evaluation import evaluate
from tombola.training.finite_data import MeasureWarning
from tombola.training.first_batch import check_first_batch
from tombola.training.hyperbolic import ham
from tombola.training.identities import data_digest, fingerprint, identity, task_identity
from tombola.training.lasting_state import StateWarning
from tombola.training.legacy import as_first_written, upgraded
from tombola.training.loaders import DataWarning, LoadedBatches, first_of, pairs_of
from tombola.training.loop import Fit, fit, length_of
from tombola.training.losses import (
    CrossEntropy,
    NextToken,
    as_outputs,
    binary_cross_entropy,
    check_classes,
    half_squared_error,
    multi_label_cross_entropy,
)
from tombola.training.memory import peak_memory, reset_peak_memory, step_memory
from tombola.training.memory_format import channels_last, is_trial, trial
from tombola.training.metric_values import are_shares, metric_text, registered
from tombola.training.metrics import (
    R2,
    MicroF1,
    NegativePerplexity,
    Pearson,
    SummedMetric,
    Tally,
    TokenAccuracy,
    TopAccuracy,
    accuracy,
    binary_accuracy,
    label_accuracy,
    negative_mae,
)
from tombola.training.observers import GatheredScores, Observer, Snapshot, State, Until, gather_scores
from tombola.training.own_optimizer import ByEpoch, OptimizerFactory
from tombola.training.placement import bring_along, placed
from tombola.training.progress import Bars, bars, in_words_of_time
from tombola.training.randomness import mixed, own_randomness
from tombola.training.recipe import Recipe, autocast
from tombola.training.robust_watch import RobustWatch, robust_metric
from tombola.training.run import Run, seed_of
from tombola.training.step import Step
from tombola.training.supervised_task import SupervisedTask
from tombola.training.task import Split, Task, TaskWrapper, metric_of, unwrap, with_recipe
from tombola.training.ticket_training import (
    Trained,
    check_length,
    epochs_spent,
    recipe_of,
    share_of_work,
    start_of,
    train,
)

__all__ = [
    "R2",
    "AdversarialTask",
    "Adversary",
    "Apgd",
    "Attack",
    "AttackWarning",
    "AttackedBatches",
    "BalancedAccuracy",
    "Bars",
    "ByEpoch",
    "Checkpoint",
    "Cost",
    "CrossEntropy",
    "DataWarning",
    "Diverged",
    "Fit",
    "GatheredScores",
    "LoadedBatches",
    "MacroF1",
    "Matthews",
    "MeanIoU",
    "MeasureWarning",
    "Member",
    "MemoryBatches",
    "Meter",
    "MicroF1",
    "NegativePerplexity",
    "NextToken",
    "Observer",
    "OptimizerFactory",
    "Pearson",
    "PixelAccuracy",
    "Recipe",
    "RobustCheck",
    "RobustWatch",
    "Run",
    "SampleFlops",
    "Snapshot",
    "Split",
    "State",
    "StateWarning",
    "Step",
    "SummedMetric",
    "SupervisedTask",
    "Tally",
    "Task",
    "TaskWrapper",
    "TokenAccuracy",
    "TopAccuracy",
    "Trained",
    "Until",
    "accuracy",
    "adversarial",
    "adversary_of",
    "agreed_device",
    "are_shares",
    "as_first_written",
    "as_outputs",
    "ascended",
    "autocast",
    "bars",
    "binary_accuracy",
    "binary_cross_entropy",
    "bring_along",
    "channels_last",
    "check_classes",
    "check_first_batch",
    "check_length",
    "chosen_device",
    "data_digest",
    "epochs_spent",
    "evaluate",
    "fingerprint",
    "first_of",
    "fit",
    "flop_counter",
    "gather_scores",
    "half_squared_error",
    "ham",
    "identity",
    "in_words_of_time",
    "is_stage_file",
    "is_trial",
    "label_accuracy",
    "length_of",
    "metric_of",
    "metric_text",
    "mixed",
    "move",
    "multi_label_cross_entropy",
    "negative_mae",
    "own_randomness",
    "pairs_of",
    "peak_memory",
    "pick",
    "placed",
    "recipe_of",
    "registered",
    "remove_stages",
    "reset_peak_memory",
    "robust_metric",
    "seed_of",
    "share_of_work",
    "start_of",
    "step_memory",
    "task_identity",
    "train",
    "train_samples",
    "train_together",
    "trial",
    "unwrap",
    "upgraded",
    "with_attack",
    "with_recipe",
    "without_attack",
]
