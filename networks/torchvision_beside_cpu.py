"""torchvision beside the CPU build of torch, whose C++ part does not load there."""

from __future__ import annotations

import sys

import torch

LIBRARIES: list[torch.library.Library] = []
"""Kept, since a library's operators go with it."""


def import_torchvision() -> None:
    """Import torchvision; where its operators cannot load, with their schemas alone."""
    if "torchvision" in sys.modules:
        return
    try:
        import torchvision
    except RuntimeError:
        for name in [own for own in sys.modules if own.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        LIBRARIES.append(torch.library.Library("torchvision", "DEF"))
        for operator in ("nms", "qnms"):
            LIBRARIES[-1].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401
