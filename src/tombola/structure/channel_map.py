"""Modules without parameters that move channels, and say to where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeGuard, runtime_checkable

from torch import nn


@runtime_checkable
class ChannelMap(Protocol):
    """A module whose output channels are input channels or zeros, as a shortcut that pads.

    The trace of a network follows channels through any module that has these attributes. It ends at another operation
    that rearranges channels, and layers that reach one keep all channels.

    Args:
        inputs: how many channels come in.
        sources: for each output channel the input channel that it equals; None where it is zero.
    """

    inputs: int
    sources: tuple[int | None, ...]

    def kept(self, inputs: Sequence[int], outputs: Sequence[int]) -> nn.Module:
        """The module that does the same between the channels that remain, given by their numbers in this one."""
        ...


def moves_channels(module: object) -> TypeGuard[ChannelMap]:
    """Whether a module says where it moves channels; a look at one attribute settles most, without the protocol's."""
    return hasattr(module, "sources") and isinstance(module, ChannelMap)
