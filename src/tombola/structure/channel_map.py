"""Modules without parameters that move channels, and say where to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class ChannelMap(Protocol):
    """A module whose output channels are input channels or zeros, as a shortcut that pads.

    inputs: how many channels come in; sources: for each output channel the input channel that it is, None where it is
    zero. A network that is traced for its channels follows them through any module that has these; another operation
    that rearranges channels ends the trace there, and what it touches is kept whole.
    """

    inputs: int
    sources: tuple[int | None, ...]

    def kept(self, inputs: Sequence[int], outputs: Sequence[int]) -> nn.Module:
        """The same module between a network's remaining channels, given by their present numbers."""
        ...
