"""Greedy forward selection by the names of its rules."""

from __future__ import annotations

from tombola.methods.greedy import GreedyChannels
from tombola.methods.greedy_neurons import GreedyNeurons
from tombola.methods.preset import Preset

GREEDY_PRESETS: dict[str, Preset] = {
    "greedy": Preset(
        GreedyChannels(),
        "Wolfe et al., TMLR 2024",
        "train, then build each layer anew from the channels that lower the loss most, one by one",
        "one full training, and many forward passes of parts of the network",
    ),
    "greedy-code": Preset(
        GreedyChannels(1.0, tolerance=0.02, repeat=False, candidates=50, samples=128, tune=0.1),
        "Ye et al., ICML 2020",
        "as greedy, among 50 random channels a pick, until a layer loses next to no accuracy, and tuning after each",
        "one full training, and many forward passes of parts of the network",
    ),
    "greedy-imitation": Preset(
        GreedyChannels(by="imitation", repeat=False, samples=512),
        "Ye et al., NeurIPS 2020",
        "as greedy, by how well the channels picked imitate what a layer gives to the next ones",
        "one full training, and a forward pass a layer",
    ),
    "greedy-neurons": Preset(
        GreedyNeurons(),
        "Wolfe et al., TMLR 2024",
        "pre-train a network of one hidden layer, pick its neurons one by one by what they give together, scale them",
        "one full training, which counts as training",
    ),
}
