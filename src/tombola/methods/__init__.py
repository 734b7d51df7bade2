"""Methods: each turns a task into a ticket."""

from tombola.methods.concrete import ConcreteTicketSearch
from tombola.methods.continuous import ContinuousSparsification
from tombola.methods.contract import DensityKind, Method
from tombola.methods.early_bird import EarlyBird, Slimming, Watch, Worm
from tombola.methods.enough import Draws, Enough, EnoughWatch
from tombola.methods.forward_picks import Picked, forward_selection
from tombola.methods.freezing import SearchWarning
from tombola.methods.gradual import Gradual
from tombola.methods.greedy import GreedyChannels
from tombola.methods.greedy_neurons import GreedyNeurons
from tombola.methods.iterative import Iterative
from tombola.methods.names import AMOUNTS, blocks_removed, granularity_used, label_of, method, removing
from tombola.methods.one_shot import OneShot
from tombola.methods.rare_gems_settings import rare_gems
from tombola.methods.rigl import RigL
from tombola.methods.rounds import Round
from tombola.methods.saturation_curve import Drawn, Formula, Saturation, saturation
from tombola.methods.search import find
from tombola.methods.supermask import EdgePopup, GemMiner, Supermask

__all__ = [
    "AMOUNTS",
    "ConcreteTicketSearch",
    "ContinuousSparsification",
    "DensityKind",
    "Drawn",
    "Draws",
    "EarlyBird",
    "EdgePopup",
    "Enough",
    "EnoughWatch",
    "Formula",
    "GemMiner",
    "Gradual",
    "GreedyChannels",
    "GreedyNeurons",
    "Iterative",
    "Method",
    "OneShot",
    "Picked",
    "RigL",
    "Round",
    "Saturation",
    "SearchWarning",
    "Slimming",
    "Supermask",
    "Watch",
    "Worm",
    "blocks_removed",
    "find",
    "forward_selection",
    "granularity_used",
    "label_of",
    "method",
    "rare_gems",
    "removing",
    "saturation",
]
