"""Branches of residual blocks: which layers of a module must be zero for it to give its input back, by trial."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tombola.errors import TombolaError
from tombola.nested import tensors_in
from tombola.structure.graph import Probe
from tombola.structure.layers import shared
from tombola.structure.part_trials import Call, randomise
from tombola.structure.random_state import own_random_state
from tombola.tickets import bare, check_whole, copied, device_of, joined, modules_of, names_of, recomputable

Gives = tuple[tuple[str, str], ...]
"""(layer, parameter) of the layers whose outputs a block adds to its input."""


def traced_branches(model: nn.Module, probe: Probe) -> dict[str, Gives]:
    """The layers that give each block's branch, by the block's name, in the network's order.

    A block is called once; it has no block inside it; and it gives a tensor that it takes back when some of its layers
    have parameters of zero, whatever else it takes and gives, as masks and caches. A block's siblings of the same type
    that are not such blocks are listed too, with no layers.

    Args:
        model: the network; it stays as it is.
        probe: calls it on an example of its inputs.

    Raises:
        TombolaError: if the network cannot be called.
    """
    check_whole(model, "the search for its residual blocks")
    device = device_of(model)
    # Random parameters first, so that weights that are zero or dead in the model do not look like a branch; the model's
    # own where it fails with those.
    for prepare in (randomise, nn.Module.eval):
        with own_random_state(device, 0), torch.no_grad(), recomputable():
            try:
                twin = bare(copied(model))
                prepare(twin)
                twin.eval()
                return _with_siblings(twin, *_find_branches(twin, probe))
            except TombolaError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
    raise TombolaError(
        f"the network could not be called to find its residual blocks ({reason}); "
        "name them with tb.structure.declare_blocks"
    )


def _find_branches(twin: nn.Module, probe: Probe) -> tuple[dict[str, Gives], Counter[nn.Module]]:
    """The blocks with a branch, and how often every module is called."""
    candidates, names = _candidates(twin), names_of(twin)
    order: list[nn.Module] = []
    entered: dict[nn.Module, tuple[int, Call | None]] = {}
    branches: dict[nn.Module, Sequence[str]] = {}
    trying = False  # whether hooks are called by a trial, which calls the modules inside a block again

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        if not trying:
            order.append(module)
            # A copy, since the module may change its input in place, and each trial a cache.
            call = _copied((args, kwargs)) if module in candidates else None
            entered[module] = len(order), call

    def leave(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal trying
        if trying:
            return
        start, call = entered.pop(module, (0, None))
        inside = order[start:]
        first = output[0] if isinstance(output, tuple) and output else output
        if call is None or not isinstance(first, Tensor) or any(inner in branches for inner in inside):
            return
        alike = [own for own in tensors_in(call) if own.shape == first.shape and own.dtype == first.dtype]
        places = {inner: place for place, inner in enumerate(inside)}
        layers = candidates[module]
        trying = True
        called = sorted(layers, key=lambda name: places.get(layers[name], len(order)))
        branch = next((own for value in alike if value.any() and (own := _branch(module, call, value, called))), ())
        trying = False
        if branch:
            branches[module] = branch

    for module in twin.modules():
        module.register_forward_pre_hook(enter, with_kwargs=True)
        module.register_forward_hook(leave)
    probe(twin)
    calls = Counter(order)
    gives = {
        names[module]: tuple(
            (names[layer], parameter)
            for layer in (candidates[module][path] for path in branch)
            for parameter, _ in layer.named_parameters(recurse=False)
        )
        for module, branch in branches.items()
        if calls[module] == 1 and all(calls[layer] <= 1 for layer in candidates[module].values())
    }
    return gives, calls


def _copied(call: Call) -> Call | None:
    """A copy of a call's arguments; None if they cannot be copied, or hold no tensor."""
    if not tensors_in(call):
        return None
    try:
        return copy.deepcopy(call)
    except Exception:
        return None


def _candidates(twin: nn.Module) -> dict[nn.Module, dict[str, nn.Module]]:
    """The modules that hold layers, with these by their paths in it; nothing in such a module stands elsewhere too."""
    elsewhere, names, candidates = shared(twin), names_of(twin), {}
    for name, module in modules_of(twin).items():
        inner = dict(module.named_modules())
        layers = {path: m for path, m in inner.items() if path and any(True for _ in m.parameters(recurse=False))}
        if name and layers and not elsewhere & {names[m] for m in inner.values()}:
            candidates[module] = layers
    return candidates


def _branch(module: nn.Module, call: Call, value: Tensor, layers: Sequence[str]) -> Sequence[str]:
    """The layers that must be zero for a module to give its input back; none if it does not with all of them zero."""
    silent = list(layers)
    if not _passes(module, call, value, silent):
        return ()
    for name in layers:
        fewer = [layer for layer in silent if layer != name]
        if _passes(module, call, value, fewer):
            silent = fewer
    return silent


def _passes(module: nn.Module, call: Call, value: Tensor, silent: Sequence[str]) -> bool:
    """Whether a module gives its input back when these layers' own parameters are zero."""
    zeros = {
        joined(name, parameter): torch.zeros_like(values)
        for name in silent
        for parameter, values in module.get_submodule(name).named_parameters(recurse=False)
    }
    try:
        args, kwargs = copy.deepcopy(call)
        output = functional_call(module, zeros, args, kwargs)
        return torch.equal(output[0] if isinstance(output, tuple) else output, value)
    except Exception:
        return False  # what cannot be computed without these layers needs them


def _with_siblings(twin: nn.Module, branches: Mapping[str, Gives], calls: Mapping[nn.Module, int]) -> dict[str, Gives]:
    """The blocks, and without a branch their siblings of the same type that are called once and hold no block."""
    modules = modules_of(twin)
    kinds = {(_parent(name), type(modules[name])) for name in branches}

    def is_sibling(name: str) -> bool:
        alike = (_parent(name), type(modules[name])) in kinds and calls.get(modules[name], 0) == 1
        return bool(name) and alike and not any(block.startswith(f"{name}.") for block in branches)

    return {name: branches.get(name, ()) for name in modules if name in branches or is_sibling(name)}


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
