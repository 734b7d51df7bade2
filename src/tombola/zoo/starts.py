"""From which distribution a network's weights start (He et al., ICCV 2015)."""

from __future__ import annotations

from typing import Literal

from torch import nn

Start = Literal["fan-in", "fan-out"]
"""How the weights of VGG and ResNet are drawn: `fan-in` in all layers, as by the lottery ticket papers' code (OpenLTH,
Rare Gems, Concrete Ticket Search); `fan-out` in convolutions, and torch's own narrow draw in linear layers, as
Tombola's networks started before."""


def draw(network: nn.Module, start: Start = "fan-in") -> None:
    """Draw the weights of a network from normal distributions whose width keeps signals at their size.

    Args:
        network: its convolutions and linear layers get new weights; biases and norms stay.
        start: which distribution.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) or (isinstance(module, nn.Linear) and start == "fan-in"):
            mode = "fan_in" if start == "fan-in" else "fan_out"
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
