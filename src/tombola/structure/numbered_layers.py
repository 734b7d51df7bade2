"""The layers, norms and scales of a network whose channels a trace follows, each channel with a number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from tombola.structure.channel_map import moves_channels
from tombola.structure.layers import (
    channels,
    entering,
    has_inputs,
    inputs,
    is_depthwise,
    is_divisible,
    is_known,
    is_of_stream,
    is_producer,
    is_transposed,
    normed_together,
    scale_axis,
    shared,
    tables,
)
from tombola.structure.marks import Marks, along
from tombola.structure.partial_norm import norm_form
from tombola.structure.recurrent_layers import STATE, hidden_slices, is_recurrent
from tombola.tickets import joined, modules_of
from tombola.tickets.torch_private import own_buffers, own_parameters


@dataclass(frozen=True, eq=False)
class NumberedLayers:
    """The layers, norms and scales of a network whose channels can be numbered.

    Args:
        modules: the modules by their names.
        scales: parameters that no layer holds, with one element a channel, or one of each token or place, and the
            tables of embeddings; by their names, and their axes.
        spans: the numbers of the channels of each group.
        streams: whether the channels of a layer or RMS norm are told apart.
    """

    modules: Mapping[str, nn.Module]
    scales: Mapping[str, int]
    spans: Mapping[str, range]
    streams: bool = False

    @staticmethod
    def of(model: nn.Module, streams: bool = False) -> NumberedLayers:
        """Those of a network; with all that writes to streams under layer and RMS norms if these are asked for."""
        every, elsewhere = modules_of(model), shared(model)
        known = {
            name: module
            for name, module in every.items()
            if name not in elsewhere and (is_known(module) or (streams and is_of_stream(module)))
        }
        widths = {channels(own) for own in known.values() if streams and norm_form(own) is not None}
        scales = {
            joined(name, own): axis
            for name, module in every.items()
            if name not in elsewhere and type(module).__module__.partition(".")[0] != "torch" and name not in known
            for own, parameter in own_parameters(module).items()
            if parameter is not None and (axis := scale_axis(parameter, widths)) is not None
        } | (dict.fromkeys(sorted(tables(model)), 1) if streams else {})
        sizes: dict[str, int] = {}
        for name, module in known.items():
            if moves_channels(module):
                sizes |= {entering(name): module.inputs, name: len(module.sources)}
                continue
            if has_inputs(module):
                sizes[entering(name)] = inputs(module)
            sizes[name] = channels(module)
            if is_recurrent(module):
                sizes[entering(name + STATE)] = channels(module)
        sizes |= {name: _parameter(every, name).shape[axis] for name, axis in scales.items()}
        spans, start = {}, 1
        for name, size in sizes.items():
            spans[name] = range(start, start + size)
            start += size
        return NumberedLayers(known, scales, spans, streams)

    def marks_of(self, twin: nn.Module) -> dict[int, Marks]:
        """The marks of a copy's parameters and buffers."""
        found, every = {}, modules_of(twin)
        for name in self.modules:
            module = every[name]
            if moves_channels(module):
                continue
            leaving = np.array(self.spans[name])
            if is_recurrent(module):
                for part in hidden_slices("", module, "makes"):
                    tensor = own_parameters(module)[part.parameter]
                    assert tensor is not None
                    rows = np.resize(leaving, len(tensor))
                    found[id(tensor)] = Marks((along(rows, 0, tensor.ndim),), origin=name)
                continue
            for own, tensor in {**own_parameters(module), **own_buffers(module)}.items():
                if tensor is None or not tensor.ndim:
                    continue
                if own != "weight" or not is_producer(module):
                    if tensor.numel() == tensor.shape[-1] == len(leaving):
                        places, scales = leaving.reshape(tensor.shape), isinstance(module, nn.PReLU)
                        found[id(tensor)] = Marks((places,), origin=name, scales=scales)
                    continue
                axis = int(is_transposed(module))
                found[id(tensor)] = Marks(
                    (along(leaving, axis, tensor.ndim),), takes=self._taken(name, module, tensor), origin=name
                )
        for name, axis in self.scales.items():
            tensor = _parameter(every, name)
            found[id(tensor)] = Marks((along(np.array(self.spans[name]), axis, tensor.ndim),), origin=name, scales=True)
        return found

    def _taken(self, name: str, module: nn.Module, weight: Tensor) -> np.ndarray:
        """The channels with which each element of a weight is multiplied."""
        if is_depthwise(module):
            return along(np.array(self.spans[name]), 0, weight.ndim)
        taken = np.array(self.spans[entering(name)])
        if is_transposed(module):
            return along(taken, 0, weight.ndim)
        groups = getattr(module, "groups", 1)
        if groups == 1:
            return along(taken, 1, weight.ndim)
        by_group = taken.reshape(groups, -1).repeat(len(weight) // groups, 0)
        return by_group.reshape(*by_group.shape, *[1] * (weight.ndim - 2))

    def ties(self) -> Iterator[np.ndarray]:
        """The channels of a layer or norm that can only be cut together, whatever the network does with them."""
        for name, module in self.modules.items():
            if moves_channels(module):
                continue
            own = np.array(self.spans[name])
            size = normed_together(module)
            if size > 1 and not (self.streams and norm_form(module)):  # which can become a partial one
                yield np.stack([own.reshape(-1, size)[:, :1].repeat(size, 1).ravel(), own])
            groups = getattr(module, "groups", 1)
            if has_inputs(module) and groups > 1 and not is_divisible(module):
                # Of a grouped convolution, a group's outputs and inputs can only be cut together.
                first = own.reshape(groups, -1)[:, 0]
                for span in (own, np.array(self.spans[entering(name)])):
                    yield np.stack([first.repeat(len(span) // groups), span])


def _parameter(modules: Mapping[str, nn.Module], name: str) -> Tensor:
    owner, _, own = name.rpartition(".")
    parameter = own_parameters(modules[owner])[own]
    assert parameter is not None
    return parameter
