"""Hidden neurons that a trace finds, whatever their layers are called."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.structure.declared_parts import Part
from tombola.structure.graph import Probe
from tombola.structure.layers import CONVOLUTIONS, inputs, is_depthwise, is_linear
from tombola.structure.trace import wiring_of
from tombola.structure.wiring import INPUTS, PINNED
from tombola.tickets import modules_of


def found_neurons(model: nn.Module, probe: Probe) -> tuple[Part, ...]:
    """The feed-forward parts of a network: linear layers, what acts on each of their outputs alone, a linear layer.

    A gate is one more layer in front, a depthwise convolution may stand between, and convolutions of size 1 that widen
    and narrow again count as linear layers.

    Args:
        model: the network; it stays as it is.
        probe: calls it on an example of its inputs.

    Returns:
        The parts, in the network's order; none if the network cannot be traced.
    """
    try:
        wiring = wiring_of(model, probe)
    except TombolaError:
        return ()
    modules = modules_of(model)
    classes = wiring.classes(wiring.by_groups)
    by_group = wiring.by_group(classes)
    members: dict[int, list[str]] = {}
    for name, own in by_group.items():
        for number in set(own.tolist()):
            members.setdefault(number, []).append(name)
    parts = []
    for name, own in by_group.items():
        takes = name.removesuffix(INPUTS)
        if name == takes or classes[PINNED] in own or len(set(own.tolist())) < len(own):
            continue
        groups = members[int(own[0])]
        makers = [group for group in groups if group != name]
        same = all(members[number] == groups for number in own.tolist()) and all(
            torch.equal(by_group[group], own) for group in makers
        )
        fits = same and _is_feed_forward([modules.get(m) for m in makers], modules.get(takes))
        norms = [wiring.norms[maker] for maker in makers if maker in wiring.norms]
        if fits and not any(isinstance(modules[norm], (nn.LayerNorm, nn.GroupNorm)) for norm in norms):
            makes = [layer for maker in makers for layer in (maker, wiring.norms.get(maker)) if layer]
            parts.append(Part("neuron", tuple(makes), takes))
    return tuple(parts)


def _is_feed_forward(makers: Sequence[nn.Module | None], taker: nn.Module | None) -> bool:
    if is_linear(taker):
        linear = [is_linear(maker) for maker in makers]
        return any(linear) and all(own or is_depthwise(maker) for own, maker in zip(linear, makers, strict=True))
    if not _is_pointwise(taker) or not makers or not all(_is_pointwise(maker) for maker in makers):
        return False
    return all(inputs(maker) <= inputs(taker) for maker in makers)


def _is_pointwise(module: nn.Module | None) -> bool:
    """Whether a convolution is a linear layer at each place."""
    return isinstance(module, CONVOLUTIONS) and module.groups == 1 and set(module.kernel_size) == {1}
