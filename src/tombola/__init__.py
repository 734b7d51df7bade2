"""Tombola finds winning lottery tickets in PyTorch networks and proves that they win."""

from importlib.metadata import version as _version

from tombola import scores
from tombola.errors import TombolaError
from tombola.evidence import Verdict
from tombola.methods import (
    METHODS,
    ConcreteTicketSearch,
    ContinuousSparsification,
    EarlyBird,
    EdgePopup,
    GemMiner,
    Iterative,
    OneShot,
    Slimming,
    Supermask,
    Worm,
    find,
    method,
    rare_gems,
)
from tombola.shrink import (
    Plan,
    ShrinkWarning,
    SparsityWarning,
    load_small,
    save_small,
    shrink,
    shrinking,
    sparse,
    to_onnx,
)
from tombola.structure import NM, Channels, Prunable, Slice, UnitGroup, Units, Weights, prunable
from tombola.studies import Engine, Result, RunSpec, Store, Study, check, compare, execute
from tombola.tickets import Mask, Seed, Ticket, Values, attach, select
from tombola.training import Observer, Recipe, Run, Step, SupervisedTask, Task, train

__version__ = _version("tombola")

__all__ = [
    "METHODS",
    "NM",
    "Channels",
    "ConcreteTicketSearch",
    "ContinuousSparsification",
    "EarlyBird",
    "EdgePopup",
    "Engine",
    "GemMiner",
    "Iterative",
    "Mask",
    "Observer",
    "OneShot",
    "Plan",
    "Prunable",
    "Recipe",
    "Result",
    "Run",
    "RunSpec",
    "Seed",
    "ShrinkWarning",
    "Slice",
    "Slimming",
    "SparsityWarning",
    "Step",
    "Store",
    "Study",
    "Supermask",
    "SupervisedTask",
    "Task",
    "Ticket",
    "TombolaError",
    "UnitGroup",
    "Units",
    "Values",
    "Verdict",
    "Weights",
    "Worm",
    "attach",
    "check",
    "compare",
    "execute",
    "find",
    "load_small",
    "method",
    "prunable",
    "rare_gems",
    "save_small",
    "scores",
    "select",
    "shrink",
    "shrinking",
    "sparse",
    "to_onnx",
    "train",
]
