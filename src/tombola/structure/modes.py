"""Training and evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Literal

from torch import nn

Mode = Literal["train", "eval"]


@contextmanager
def in_mode(network: Any, mode: Mode) -> Generator[None]:
    """Inside, a network is in a mode; afterwards each module is in its former mode, also a norm that was frozen.

    Args:
        network: a module; anything else has no mode and is left alone.
        mode: `train` or `eval`.

    Examples:
        >>> model = nn.Dropout()
        >>> with in_mode(model, "eval"):
        ...     model.training
        False
        >>> model.training
        True
    """
    modes = {part: part.training for part in network.modules()} if isinstance(network, nn.Module) else {}
    try:
        if modes:  # a network's own `train` may do more than set flags, so that it is called both times
            network.train(mode == "train")
        yield
    finally:
        if modes:
            network.train(modes[network])
        for part, training in modes.items():
            part.training = training
