"""Norms right behind a layer: they undo the scale of its weights."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tombola.structure.graph import Probe
from tombola.structure.layers import BATCH_NORMS, NORMS, is_producer
from tombola.structure.meta_device import meta_twin
from tombola.structure.random_state import own_random_state
from tombola.tickets import bare, copied, device_of, joined, modules_of

INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
SCALE_FREE = NORMS
"""Norms that divide by the size of what they get."""


def norms_behind(model: nn.Module, probe: Probe) -> dict[str, nn.Module]:
    """The norm that takes a layer's output as it is, by the name of the layer's weight.

    A copy is called, without values if the network can be called so: this is no sample that goes forward.

    Args:
        model: the network; it stays as it is.
        probe: calls it on an example of its inputs.

    Returns:
        The norms of the copy that was called.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 3, 1))
        >>> list(norms_behind(model, lambda model: model(torch.ones(1, 1, 4, 4, device=model[0].weight.device))))
        ['0.weight']
    """
    try:
        return _seen(bare(meta_twin(model)), probe)
    except Exception:  # a path that depends on values needs a device that has them
        return _seen(bare(copied(model)), probe)


def _seen(twin: nn.Module, probe: Probe) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    # Weak, so that a layer's output is freed as early as without the hooks.
    latest: dict[str, weakref.ref[Tensor]] = {}

    def after_layer(name: str, output: Any) -> None:
        if isinstance(output, Tensor):
            latest[name] = weakref.ref(output)

    def before_norm(norm: nn.Module, args: Any) -> None:
        found.update({name: norm for name, output in latest.items() if args and output() is args[0]})

    for name, module in _layers(twin):
        module.register_forward_hook(lambda _, __, out, name=name: after_layer(name, out))
    for module in twin.modules():
        if isinstance(module, SCALE_FREE):
            module.register_forward_pre_hook(before_norm)
    with own_random_state(device_of(twin), 0), torch.no_grad():
        probe(twin.eval())
    return found


def scale_undone(norm: nn.Module, each: bool, mode: str) -> bool:
    """Whether a norm gives the same for weights of any scale, but for its ε.

    Args:
        norm: the norm behind a layer.
        each: whether each output of the layer may have a scale of its own.
        mode: the norm's, "train" or "eval": with running statistics, batch norm is a fixed map in evaluation mode.
    """
    if isinstance(norm, (*BATCH_NORMS, *INSTANCE_NORMS)):
        # InstanceNorm too has running statistics if it is asked to keep them.
        return mode == "train" or getattr(norm, "running_mean", None) is None
    if isinstance(norm, nn.GroupNorm) and norm.num_groups == norm.num_channels:
        return True
    return not each


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in modules_of(model).items():
        if is_producer(module):
            yield joined(name, "weight"), module
