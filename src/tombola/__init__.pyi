from . import evidence, methods, robust, scores, shrinking, structure, studies, testing, tickets, training
from .connectivity import stability, transfer
from .errors import TombolaError
from .evidence import Verdict
from .methods import EarlyBird, GemMiner, Iterative, OneShot, Worm, find, method
from .registry import METHODS
from .shrinking import load_small, select, shrink
from .structure import Channels, Prunable
from .studies import Engine, RunSpec, Store, Study, check, compare, execute, sanity, sensitivity
from .tickets import Mask, Ticket, attach
from .training import Recipe, Run, SupervisedTask, Task, adversarial, train

__version__: str

__all__ = [
    "METHODS",
    "Channels",
    "EarlyBird",
    "Engine",
    "GemMiner",
    "Iterative",
    "Mask",
    "OneShot",
    "Prunable",
    "Recipe",
    "Run",
    "RunSpec",
    "Store",
    "Study",
    "SupervisedTask",
    "Task",
    "Ticket",
    "TombolaError",
    "Verdict",
    "Worm",
    "adversarial",
    "attach",
    "check",
    "compare",
    "evidence",
    "execute",
    "find",
    "load_small",
    "method",
    "methods",
    "robust",
    "sanity",
    "scores",
    "select",
    "sensitivity",
    "shrink",
    "shrinking",
    "stability",
    "structure",
    "studies",
    "testing",
    "tickets",
    "train",
    "training",
    "transfer",
]
