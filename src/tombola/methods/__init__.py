"""Methods: each turns a task into a ticket."""

from tombola.methods.describe import describe
from tombola.methods.find import find
from tombola.methods.iterative import Iterative
from tombola.methods.method import DensityKind, Method
from tombola.methods.one_shot import OneShot
from tombola.methods.presets import METHODS, Preset, method, name_of
from tombola.methods.rounds import Round

__all__ = [
    "METHODS",
    "DensityKind",
    "Iterative",
    "Method",
    "OneShot",
    "Preset",
    "Round",
    "describe",
    "find",
    "method",
    "name_of",
]
