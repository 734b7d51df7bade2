"""Residual blocks whose branch is dead, so that they give what they are given."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from tombola.structure import Probe
from tombola.tickets import plain_name


@torch.no_grad()
def idle(masked: nn.Module, dead: Collection[str], probe: Probe) -> tuple[str, ...]:
    """Modules that hold a dead layer and return their input unchanged, in evaluation and in training.

    masked: the network without what is dead; dead: layers of which every output is. The outermost are named.
    """
    twin = copy.deepcopy(masked).double()
    named = {plain_name(name): module for name, module in twin.named_modules()}
    held = [name for name in named if name and any(layer.startswith(f"{name}.") for layer in dead)]
    passes: dict[str, bool] = {}

    def watch(name: str) -> Any:
        def seen(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            passes[name] = passes.get(name, True) and len(args) == 1 and _same(args[0], output)

        return named[name].register_forward_hook(seen)

    for name in held:
        watch(name)
    if held:
        with torch.random.fork_rng():
            for training in (False, True):
                try:
                    probe(twin.train(training))
                except Exception:
                    return ()
    found = [name for name in held if passes.get(name)]
    return tuple(name for name in found if not any(name.startswith(f"{other}.") for other in found))


def _same(given: Any, output: Any) -> bool:
    return isinstance(given, Tensor) and isinstance(output, Tensor) and torch.equal(given, output)
