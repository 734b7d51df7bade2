"""Tombola finds winning lottery tickets in PyTorch networks and proves that they win.

What can be imported from here stands in `__init__.pyi`, and is loaded when it is used: listing methods needs no torch.
"""

import warnings as _warnings
from importlib.metadata import version as _version
from pkgutil import resolve_name as _resolve_name
from typing import Any as _Any

import lazy_loader as _lazy

_current, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
__version__ = _version("tombola")

_MOVED = {
    "Blocks": "structure.Blocks",
    "ConcreteTicketSearch": "methods.ConcreteTicketSearch",
    "ContinuousSparsification": "methods.ContinuousSparsification",
    "EdgePopup": "methods.EdgePopup",
    "Enough": "methods.EnoughPretraining",
    "Filters": "structure.Filters",
    "Formula": "methods.EnoughFormula",
    "Gradual": "methods.Gradual",
    "GreedyChannels": "methods.GreedyChannels",
    "GreedyNeurons": "methods.GreedyNeurons",
    "Inner": "structure.Part",
    "Inside": "structure.PartUnits",
    "Member": "training.Member",
    "Meter": "training.Meter",
    "NM": "structure.NM",
    "Observer": "training.Observer",
    "Plan": "shrinking.Plan",
    "QueryKey": "structure.QueryKey",
    "Result": "studies.Result",
    "RigL": "methods.RigL",
    "Robustness": "robust.Robustness",
    "Sanity": "evidence.Sanity",
    "Seed": "tickets.Seed",
    "Serial": "studies.Serial",
    "ShrinkWarning": "shrinking.ShrinkWarning",
    "Slice": "structure.Slice",
    "Slimming": "methods.Slimming",
    "SparsityWarning": "shrinking.SparsityWarning",
    "Step": "training.Step",
    "Supermask": "methods.Supermask",
    "UnitGroup": "structure.UnitGroup",
    "Units": "structure.Units",
    "Values": "tickets.Values",
    "Weights": "structure.Weights",
    "corrupt": "robust.corrupt",
    "declare_blocks": "structure.declare_blocks",
    "fgsm": "robust.fgsm",
    "forward_selection": "methods.forward_selection",
    "pgd": "robust.pgd",
    "prunable": "structure.prunable",
    "rare_gems": "methods.rare_gems",
    "save_small": "shrinking.save_small",
    "sparse": "shrinking.sparse",
    "to_onnx": "shrinking.to_onnx",
    "train_together": "training.train_together",
}
"""What stood here in version 0.1, and where it stands now."""


def __getattr__(name: str) -> _Any:
    if name not in _MOVED:
        return _current(name)
    _warnings.warn(f"tb.{name} is now tb.{_MOVED[name]}", FutureWarning, stacklevel=2)
    return _resolve_name(f"{__name__}.{_MOVED[name]}")
