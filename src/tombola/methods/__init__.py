"""Methods: each turns a task into a ticket."""

from tombola.methods.boosting import Boosting
from tombola.methods.concrete_ticket_search import ConcreteTicketSearch
from tombola.methods.continuous_sparsification import ContinuousSparsification
from tombola.methods.early_bert import EarlyBert
from tombola.methods.early_bird import EarlyBird, Slimming, Watch, Worm
from tombola.methods.enough_pretraining import EnoughPretraining, EnoughWatch, PretrainingDraws
from tombola.methods.filter_rankings import ranking_distance
from tombola.methods.gradual import Gradual
from tombola.methods.greedy_channels import GreedyChannels
from tombola.methods.greedy_neurons import GreedyNeurons
from tombola.methods.iterative import Iterative
from tombola.methods.loft import LoFT
from tombola.methods.method_names import AMOUNTS, blocks_removed, granularity_used, label_of, method, removing
from tombola.methods.moving_watch import MovingWatch
from tombola.methods.neuron_selection import NeuronPicks, forward_selection
from tombola.methods.one_shot import OneShot
from tombola.methods.pretrained_iterative import PretrainedIterative
from tombola.methods.protocol import DensityKind, Method, Watching
from tombola.methods.rare_gems_settings import rare_gems
from tombola.methods.rigl import RigL
from tombola.methods.rounds import Round
from tombola.methods.rst import RST
from tombola.methods.rst_settings import published_rst
from tombola.methods.rst_watch import RstWatch
from tombola.methods.saturation_curve import CurvePoint, EnoughFormula, Saturation, saturation
from tombola.methods.score_freezing import SearchWarning
from tombola.methods.search import find
from tombola.methods.sizing import Sized, counted, fitted, shaped_as, sized
from tombola.methods.supermask import EdgePopup, GemMiner, Supermask
from tombola.methods.surviving_parts import SurvivingParts
from tombola.methods.surviving_weights import SurvivingWeights
from tombola.methods.worker_processes import place_at_torchrun

__all__ = [
    "AMOUNTS",
    "RST",
    "Boosting",
    "ConcreteTicketSearch",
    "ContinuousSparsification",
    "CurvePoint",
    "DensityKind",
    "EarlyBert",
    "EarlyBird",
    "EdgePopup",
    "EnoughFormula",
    "EnoughPretraining",
    "EnoughWatch",
    "GemMiner",
    "Gradual",
    "GreedyChannels",
    "GreedyNeurons",
    "Iterative",
    "LoFT",
    "Method",
    "MovingWatch",
    "NeuronPicks",
    "OneShot",
    "PretrainedIterative",
    "PretrainingDraws",
    "RigL",
    "Round",
    "RstWatch",
    "Saturation",
    "SearchWarning",
    "Sized",
    "Slimming",
    "Supermask",
    "SurvivingParts",
    "SurvivingWeights",
    "Watch",
    "Watching",
    "Worm",
    "blocks_removed",
    "counted",
    "find",
    "fitted",
    "forward_selection",
    "granularity_used",
    "label_of",
    "method",
    "place_at_torchrun",
    "published_rst",
    "ranking_distance",
    "rare_gems",
    "removing",
    "saturation",
    "shaped_as",
    "sized",
]
