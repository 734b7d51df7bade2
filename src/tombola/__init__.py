"""Tombola finds winning lottery tickets in PyTorch networks and proves that they win."""

from importlib.metadata import version as _version

from tombola import scores
from tombola.errors import TombolaError
from tombola.evidence import Verdict
from tombola.methods import (
    METHODS,
    ConcreteTicketSearch,
    ContinuousSparsification,
    EdgePopup,
    GemMiner,
    Iterative,
    OneShot,
    Supermask,
    find,
    method,
    rare_gems,
)
from tombola.shrink import SparsityWarning, shrink, shrinking, sparse
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
    "EdgePopup",
    "Engine",
    "GemMiner",
    "Iterative",
    "Mask",
    "Observer",
    "OneShot",
    "Prunable",
    "Recipe",
    "Result",
    "Run",
    "RunSpec",
    "Seed",
    "Slice",
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
    "attach",
    "check",
    "compare",
    "execute",
    "find",
    "method",
    "prunable",
    "rare_gems",
    "scores",
    "select",
    "shrink",
    "shrinking",
    "sparse",
    "train",
]
