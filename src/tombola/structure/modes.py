"""Training and evaluation mode, and leaving both as they were."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Literal

from torch import nn

Mode = Literal["train", "eval"]


@contextmanager
def in_mode(network: Any, mode: Mode) -> Generator[None]:
    """Inside, a network is in a mode; afterwards each of its parts is in the mode that it was in, as a frozen norm.

    What is no module has no mode. The network's own `train` is called on the way in and out, since it may do more.
    """
    modes = {part: part.training for part in network.modules()} if isinstance(network, nn.Module) else {}
    try:
        if modes:
            network.train(mode == "train")
        yield
    finally:
        if modes:
            network.train(modes[network])
        for part, training in modes.items():
            part.training = training
