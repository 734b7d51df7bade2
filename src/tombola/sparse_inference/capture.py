"""From a network to programs: its graph is traced, and what the kernels know of it becomes steps."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tombola.sparse_inference.program import Kept, Program, Shape, Step
from tombola.structure import moves_channels


class NotKnown(Exception):
    """A node of the graph is nothing that the kernels do; the message says what it is."""


@dataclass
class Builder:
    """Makes steps of a graph's nodes, in their order.

    A convolution waits for what follows it, so that a norm, a sum and a ReLU become part of it.

    Args:
        modules: the network's, by name.
    """

    modules: Mapping[str, nn.Module]
    shapes: list[Shape] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    maps: dict[fx.Node, int] = field(default_factory=dict)
    waiting: dict[fx.Node, Step] = field(default_factory=dict)

    def begin(self, node: fx.Node) -> None:
        """Read this node's value in."""
        self.shapes.append(shape_of(node))
        self.maps[node] = 0

    def add(self, node: fx.Node) -> None:
        """Do what a node does.

        Raises:
            NotKnown: the kernels do not know it.
        """
        if node.meta["value"] is None:  # a size, which only a change of shape asks for
            return
        what, (source, *others), named = _called(node, self.modules)
        name = f"{type(what).__name__} ({node.target})" if isinstance(what, nn.Module) else str(node.target)
        make = MAKERS.get(type(what) if isinstance(what, nn.Module) else what)
        if isinstance(what, nn.Module) and moves_channels(what):
            make = _pick
        if make is None or not isinstance(source, fx.Node):
            raise NotKnown(name)
        changes_source = getattr(what, "inplace", False) or named.get("inplace") or what in IN_PLACE
        if changes_source and len(users_of(source)) > 1:
            raise NotKnown(f"{name} in place, of a value that is used again")
        make(self, node, what, source, others, named)

    def map_of(self, node: fx.Node) -> int:
        """The map that holds a node's value; what waited is done now."""
        if node in self.waiting:
            step = self.waiting.pop(node)
            self.maps[node] = self._do(step, shape_of(node))
        return self.maps[node]

    def fused(self, source: fx.Node, node: fx.Node, **changes: Any) -> bool:
        """Let what waits for `source` do what `node` does as well, if nobody else wants it as it is."""
        if source not in self.waiting or len(users_of(source)) > 1:
            return False
        self.waiting[node] = replace(self.waiting.pop(source), **changes)
        return True

    def emit(self, node: fx.Node, step: Step) -> None:
        """Do a step now."""
        self.maps[node] = self._do(step, shape_of(node))

    def alias(self, node: fx.Node, source: fx.Node) -> None:
        """A node whose value is its source's."""
        if source in self.waiting and len(users_of(source)) == 1:
            self.waiting[node] = self.waiting.pop(source)
        else:
            self.maps[node] = self.map_of(source)

    def finish(self, node: fx.Node) -> Program:
        """The program whose result is a node's value."""
        last = self.map_of(node)
        return Program(tuple(self.shapes), tuple(self.steps), last)

    def _do(self, step: Step, shape: Shape) -> int:
        self.shapes.append(shape)
        number = len(self.shapes) - 1
        self.steps.append(replace(step, target=number))
        return number


def users_of(node: fx.Node) -> list[fx.Node]:
    """The nodes that take a node's value, and not only its size."""
    return [user for user in node.users if user.meta.get("value", ()) is not None]


def shape_of(node: fx.Node) -> Shape:
    """The shape of a node's value without its samples: a map, or features.

    Raises:
        NotKnown: it is neither.
    """
    value = node.meta.get("value")
    if not isinstance(value, tuple) or len(value) not in (2, 4):
        raise NotKnown(f"a value of shape {value}")
    return Shape(*value[1:])


def _map_shape(builder: Builder, node: fx.Node) -> Shape:
    """The shape of the map that holds a value, which keeps its rows and columns where the value is flattened."""
    return builder.shapes[builder.map_of(node)]


def _called(node: fx.Node, modules: Mapping[str, nn.Module]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    what: Any = node.target
    if node.op == "call_module":
        what = modules[str(node.target)]
    elif node.op == "call_method":
        what = getattr(Tensor, str(node.target))
    elif node.op != "call_function":
        raise NotKnown(node.op)
    return what, node.args or (None,), dict(node.kwargs)


Maker = Callable[[Builder, fx.Node, Any, fx.Node, Sequence[Any], Mapping[str, Any]], None]


def _convolution(builder: Builder, node: fx.Node, layer: Any, source: fx.Node, others: Any, named: Any) -> None:
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    if not plain or isinstance(layer.padding, str) or len({*layer.padding}) > 1 or len({*layer.stride}) > 1:
        raise NotKnown(f"a convolution with groups, dilation or uneven padding ({node.target})")
    _weighted(builder, node, layer, source, layer.weight, stride=layer.stride[0], padding=layer.padding[0])


def _linear(builder: Builder, node: fx.Node, layer: Any, source: fx.Node, others: Any, named: Any) -> None:
    shape = _map_shape(builder, source)
    if len(source.meta["value"]) != 2 or shape.size != layer.in_features:
        raise NotKnown(f"a linear layer along the last axis of a map ({node.target})")
    _weighted(builder, node, layer, source, layer.weight.reshape(-1, shape.channels, shape.height, shape.width))


def _weighted(
    builder: Builder, node: fx.Node, layer: Any, source: fx.Node, weight: Tensor, stride: int = 1, padding: int = 0
) -> None:
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    how: dict[str, Any] = {"kept": Kept.of(weight.detach().numpy()), "bias": bias.numpy().copy(), "layer": node.target}
    builder.waiting[node] = Step("convolve", builder.map_of(source), -1, stride=stride, padding=padding, **how)


def _norm(builder: Builder, node: fx.Node, layer: Any, source: fx.Node, others: Any, named: Any) -> None:
    if layer.running_mean is None or layer.running_var is None:
        raise NotKnown(f"a norm without running statistics ({node.target})")
    ones = torch.ones_like(layer.running_mean)
    factors = (
        ((ones if layer.weight is None else layer.weight) / (layer.running_var + layer.eps).sqrt()).detach().numpy()
    )
    shift = (0 if layer.bias is None else layer.bias.detach()) - layer.running_mean * torch.from_numpy(factors)
    bias = shift.numpy()
    before = builder.waiting.get(source)
    if (
        before is not None
        and before.kept is not None
        and before.added is None
        and not before.relu
        and before.bias is not None
    ):
        values = before.kept.values * np.repeat(factors, np.diff(before.kept.starts))
        if builder.fused(source, node, kept=replace(before.kept, values=values), bias=before.bias * factors + bias):
            return
    builder.waiting[node] = Step("scale", builder.map_of(source), -1, factors=factors, bias=bias)


def _relu(builder: Builder, node: fx.Node, what: Any, source: fx.Node, others: Any, named: Any) -> None:
    if not builder.fused(source, node, relu=True):
        builder.waiting[node] = Step("add", builder.map_of(source), -1, relu=True)


def _sum(builder: Builder, node: fx.Node, what: Any, source: fx.Node, others: Any, named: Any) -> None:
    other = others[0] if others else None
    if not isinstance(other, fx.Node) or named or other.meta["value"] != source.meta["value"]:
        raise NotKnown("a sum of anything but two maps")
    for one, beside in ((source, other), (other, source)):
        step = builder.waiting.get(one)
        if one is not beside and step is not None and step.added is None and not step.relu and len(users_of(one)) == 1:
            builder.fused(one, node, added=builder.map_of(beside))
            return
    builder.waiting[node] = Step("add", builder.map_of(source), -1, added=builder.map_of(other))


def _same(builder: Builder, node: fx.Node, what: Any, source: fx.Node, others: Any, named: Any) -> None:
    if what is F.dropout and named.get("training", others[1] if len(others) > 1 else True) is not False:
        raise NotKnown("a dropout that is never off")
    builder.alias(node, source)


def _flat(builder: Builder, node: fx.Node, what: Any, source: fx.Node, others: Any, named: Any) -> None:
    value = source.meta["value"]
    if node.meta["value"] != (value[0], Shape(*value[1:]).size):
        raise NotKnown("a change of shape that is not flat")
    if len(value) == 4:
        builder.maps[node] = builder.map_of(source)
    else:
        builder.alias(node, source)


def _pool(builder: Builder, node: fx.Node, what: Any, source: fx.Node, others: Any, named: Any) -> None:
    """A pool is known by what it makes: its settings are read from the module, or from the call."""
    is_maximum = what in (F.max_pool2d, torch.max_pool2d) or isinstance(what, nn.MaxPool2d)
    if isinstance(what, nn.Module):
        settings = {name: getattr(what, name, None) for name in SETTINGS}
    else:
        settings = {**dict(zip(SETTINGS, others, strict=False)), **named}
    size = _pair(settings.get("kernel_size"))
    stride, padding = _pair(settings.get("stride") or size), _pair(settings.get("padding") or 0)
    odd = settings.get("ceil_mode") or settings.get("divisor_override") or settings.get("return_indices")
    odd = odd or _pair(settings.get("dilation") or 1) != (1, 1) or len({*stride}) > 1 or len({*padding}) > 1
    if odd or (not is_maximum and padding != (0, 0)):
        raise NotKnown(f"a pool of another kind ({node.target})")
    kind = "maximum" if is_maximum else "mean"
    builder.emit(node, Step(kind, builder.map_of(source), -1, window=size, stride=stride[0], padding=padding[0]))


def _mean(builder: Builder, node: fx.Node, what: Any, source: fx.Node, others: Any, named: Any) -> None:
    """The mean over all pixels."""
    if what in (torch.mean, Tensor.mean):
        over = named.get("dim", others[0] if others else ())
        is_whole = sorted(axis % 4 for axis in ((over,) if isinstance(over, int) else over)) == [2, 3]
    else:
        is_whole = node.meta["value"][2:] == (1, 1)
    if len(source.meta["value"]) != 4 or not is_whole:
        raise NotKnown("a mean over other than all pixels")
    shape = shape_of(source)
    builder.emit(node, Step("mean", builder.map_of(source), -1, window=(shape.height, shape.width)))


def _pick(builder: Builder, node: fx.Node, what: Any, source: fx.Node, others: Any, named: Any) -> None:
    channels = np.array([-1 if own is None else own for own in what.sources], np.int32)
    step = Step("pick", builder.map_of(source), -1, stride=getattr(what, "stride", 1), channels=channels)
    builder.waiting[node] = step


SETTINGS = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices", "divisor_override")


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


MAKERS: dict[Any, Maker] = {
    what: maker
    for maker, kinds in {
        _convolution: (nn.Conv2d,),
        _linear: (nn.Linear,),
        _norm: (nn.BatchNorm1d, nn.BatchNorm2d),
        _relu: (nn.ReLU, F.relu, torch.relu, Tensor.relu, torch.relu_, Tensor.relu_),
        _sum: (operator.add, operator.iadd, torch.add, Tensor.add, Tensor.add_),
        _same: (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, F.dropout, Tensor.contiguous),
        _flat: (nn.Flatten, torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape),
        _pool: (nn.MaxPool2d, nn.AvgPool2d, F.max_pool2d, F.avg_pool2d, torch.max_pool2d),
        _mean: (nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d, torch.mean, Tensor.mean),
    }.items()
    for what in kinds
}
IN_PLACE = (operator.iadd, Tensor.add_, torch.relu_, Tensor.relu_)
