"""Recurrent layers: where their hidden units lie in their parameters, and how they become smaller.

A hidden unit whose rows are zero in all gates has a state of exactly zero if it starts from zero: an LSTM adds a gate
times tanh(0) to it, a GRU takes a mean of it and tanh(0), and tanh and ReLU of zero are zero. Torch's modules have one
size for all layers and directions, so that the units of one number go together, one of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tombola.structure.units import Slice
from tombola.tickets import joined, modules_of
from tombola.tickets.torch_private import own_parameters

RECURRENT = (nn.RNNBase, nn.RNNCellBase)
PLAIN = (nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell)
STATE = " state"
"""What reads the hidden units in the next step or layer is a group by the layer's name, this and `INPUTS`."""

SIZES = ("hid", "rnn", "lstm", "gru", "state", "units")
"""What networks call the number of hidden units, among other words, from which they make states of zeros."""

Role = Literal["makes", "reads", "inputs"]


def is_recurrent(module: object) -> bool:
    """Whether a module is a recurrent layer, or one step of it, that torch's own code runs with its own weights."""
    if not isinstance(module, RECURRENT) or all(type(module).forward is not kind.forward for kind in PLAIN):
        return False
    return all(name in own_parameters(module) for name, *_ in _places(module))


def hidden_slices(name: str, module: Any, role: Role, scored: bool = False) -> list[Slice]:
    """The slices of the hidden units, or of a layer's inputs, in its parameters.

    Args:
        name: the layer's name.
        module: the layer.
        role: makes: the rows of all gates; reads: the columns that read the units in the next step, in the next layer
            and in a projection; inputs: the columns of what enters the first layer.
        scored: whether they count when a unit is scored.
    """
    size = module.input_size if role == "inputs" else module.hidden_size
    slices = []
    for parameter, own, dim, runs in _places(module):
        if own == role:
            positions = tuple(tuple(range(unit, runs * size, size)) for unit in range(size))
            slices.append(Slice(joined(name, parameter), dim, positions, scored))
    return slices


def hidden_axes(module: Any, inputs: Sequence[int], units: Sequence[int]) -> dict[str, dict[int, Tensor]]:
    """The positions that stay in each parameter.

    Args:
        module: the whole layer.
        inputs, units: the numbers of those that stay.
    """
    axes: dict[str, dict[int, Tensor]] = {}
    for parameter, role, dim, runs in _places(module):
        stay, size = (inputs, module.input_size) if role == "inputs" else (units, module.hidden_size)
        positions = torch.tensor([run * size + number for run in range(runs) for number in stay])
        axes.setdefault(parameter, {})[dim] = positions
    return axes


def least_units(module: object) -> int:
    """How many hidden units a module keeps at least: torch takes a layer for one without projections if not wider."""
    return 1 + (module.proj_size if isinstance(module, nn.LSTM) else 0)


def resize_recurrent(module: Any, inputs: int, units: int) -> None:
    """Set a layer's sizes after its parameters have shrunk."""
    module.input_size, module.hidden_size = inputs, units
    if isinstance(module, nn.RNNBase):
        module.flatten_parameters()


def mend_sizes(model: nn.Module, sizes: Mapping[str, int]) -> None:
    """Set the attributes by which modules around recurrent layers know how many hidden units these have, in place.

    A network that makes its first states itself, of zeros, makes them of that size.

    Args:
        model: the network, whose recurrent layers are smaller now.
        sizes: how many units each recurrent layer had before, by its name.
    """
    modules, found = modules_of(model), dict[tuple[str, str], set[int]]()
    for name, before in sizes.items():
        now: Any = modules[name]
        parts = name.split(".")[:-1]
        for owner in [".".join(parts[:count]) for count in range(len(parts) + 1)]:
            for own, value in vars(modules[owner]).items():
                if type(value) is int and value == before and any(word in own.lower() for word in SIZES):
                    found.setdefault((owner, own), set()).add(now.hidden_size)
    for (owner, own), values in found.items():
        if len(values) == 1:  # an attribute speaks for all layers of its size
            setattr(modules[owner], own, values.pop())


def _places(module: Any) -> Iterator[tuple[str, Role, int, int]]:
    """Parameters, what they are for, along which dimension, and how often all units follow each other there."""
    layers, ways = getattr(module, "num_layers", 1), 1 + getattr(module, "bidirectional", False)
    gates = 4 if isinstance(module, (nn.LSTM, nn.LSTMCell)) else 3 if isinstance(module, (nn.GRU, nn.GRUCell)) else 1
    projected = getattr(module, "proj_size", 0) > 0
    for layer in range(layers):
        for way in ("", "_reverse")[:ways]:
            end = f"_l{layer}{way}" if isinstance(module, nn.RNNBase) else ""
            yield from ((f"weight_{side}{end}", "makes", 0, gates) for side in ("ih", "hh"))
            yield from ((f"bias_{side}{end}", "makes", 0, gates) for side in ("ih", "hh") if module.bias)
            yield (f"weight_hr{end}" if projected else f"weight_hh{end}"), "reads", 1, 1
            if layer == 0:
                yield f"weight_ih{end}", "inputs", 1, 1
            elif not projected:
                yield f"weight_ih{end}", "reads", 1, ways
