"""Modules without parameters that move channels, and say where to."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import nn


class MovesChannels(nn.Module):
    """A module whose output channels are input channels or zeros, as a shortcut that pads.

    A network that is traced for its channels follows them through it; any other operation that rearranges channels
    ends the trace there, and what it touches is kept whole.
    """

    @property
    @abstractmethod
    def inputs(self) -> int:
        """How many channels come in."""

    @property
    @abstractmethod
    def sources(self) -> tuple[int | None, ...]:
        """For each output channel the input channel that it is; None where it is zero."""

    @abstractmethod
    def kept(self, inputs: Sequence[int], outputs: Sequence[int]) -> nn.Module:
        """The same module between a network's remaining channels, given by their present numbers."""
