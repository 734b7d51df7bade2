"""Branches of residual blocks, found by trying which layers must be silent for a module to give its input."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tombola.errors import TombolaError
from tombola.structure.graph import Probe
from tombola.structure.layers import BATCH_NORMS, shared
from tombola.structure.random_state import own_random_state
from tombola.tickets import bare, device_of, joined, modules_of, names_of

Gives = tuple[tuple[str, str], ...]
"""(layer, parameter) of the layers that give a block's branch."""


def traced_branches(model: nn.Module, probe: Probe) -> dict[str, Gives]:
    """By block what gives its branch, in the order of the network; nothing where a sibling of a block is none.

    A block is called once, on one tensor, has no block inside it, and gives that tensor when some of its layers have
    parameters of zero. Tried at random parameters, so that what is dead or zero at first does not count; at the model's
    own where it cannot be called with those. TombolaError if it cannot be called at all.
    """
    device = device_of(model)
    for prepared in (_stirred, nn.Module.eval):
        with own_random_state(device, 0), torch.no_grad():
            try:
                twin = prepared(bare(copy.deepcopy(model)))
                return _with_siblings(twin, *_found(twin, probe))
            except TombolaError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
    raise TombolaError(
        f"the network could not be called to find its residual blocks ({reason}); "
        "name them with tb.structure.declare_blocks"
    )


def _stirred(twin: nn.Module) -> nn.Module:
    """In evaluation mode, with random parameters, and random means in batch norms."""
    for own in twin.parameters():
        if own.is_floating_point():
            own.normal_(0, max(1, math.prod(own.shape[1:])) ** -0.5)
    for module in twin.modules():
        if isinstance(module, BATCH_NORMS) and module.running_mean is not None:
            module.reset_running_stats()
            module.running_mean.normal_()
    return twin.eval()


def _found(twin: nn.Module, probe: Probe) -> tuple[dict[str, Gives], Counter[nn.Module]]:
    """The blocks with a branch, and how often every module is called."""
    candidates, names = _candidates(twin), names_of(twin)
    order: list[nn.Module] = []
    entered: dict[nn.Module, tuple[int, Tensor | None]] = {}
    branches: dict[nn.Module, Sequence[str]] = {}
    trying = False

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        if not trying:
            order.append(module)
            alone = module in candidates and len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
            entered[module] = len(order), args[0].clone() if alone else None

    def leave(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal trying
        if trying:
            return
        start, given = entered.pop(module, (0, None))
        inside = order[start:]
        if given is None or not given.any() or any(own in branches for own in inside):
            return
        if not isinstance(output, Tensor) or output.shape != given.shape:
            return
        places = {own: place for place, own in enumerate(inside)}
        layers = candidates[module]
        trying = True
        branch = _branch(module, given, sorted(layers, key=lambda name: places.get(layers[name], len(order))))
        trying = False
        if branch:
            branches[module] = branch

    for module in twin.modules():
        module.register_forward_pre_hook(enter, with_kwargs=True)
        module.register_forward_hook(leave)
    probe(twin)
    calls = Counter(order)
    found = {
        names[module]: tuple(
            (names[own], part)
            for own in (candidates[module][layer] for layer in branch)
            for part, _ in own.named_parameters(recurse=False)
        )
        for module, branch in branches.items()
        if calls[module] == 1 and all(calls[own] <= 1 for own in candidates[module].values())
    }
    return found, calls


def _candidates(twin: nn.Module) -> dict[nn.Module, dict[str, nn.Module]]:
    """The modules that hold layers, all of which stand nowhere else, and these by their paths in them."""
    elsewhere, names, found = shared(twin), names_of(twin), {}
    for name, module in modules_of(twin).items():
        inner = dict(module.named_modules())
        layers = {own: part for own, part in inner.items() if own and any(True for _ in part.parameters(recurse=False))}
        if name and layers and not elsewhere & {names[part] for part in inner.values()}:
            found[module] = layers
    return found


def _branch(module: nn.Module, given: Tensor, layers: Sequence[str]) -> Sequence[str]:
    """The layers that must stay silent when one after the other speaks again; none if the input is not given back."""
    silent = list(layers)
    if not _passes(module, given, silent):
        return ()
    for name in layers:
        fewer = [own for own in silent if own != name]
        if _passes(module, given, fewer):
            silent = fewer
    return silent


def _passes(module: nn.Module, given: Tensor, silent: Sequence[str]) -> bool:
    """Whether a module gives its input when these layers' own parameters are zero."""
    zeros = {
        joined(name, part): torch.zeros_like(own)
        for name in silent
        for part, own in module.get_submodule(name).named_parameters(recurse=False)
    }
    try:
        return torch.equal(functional_call(module, zeros, (given.clone(),)), given)
    except Exception:
        return False  # what cannot be computed without these layers needs them


def _with_siblings(twin: nn.Module, found: Mapping[str, Gives], calls: Mapping[nn.Module, int]) -> dict[str, Gives]:
    """The blocks and, without a branch, what stands beside them, is of their type, is called once, and holds none."""
    named = modules_of(twin)
    kinds = {(_parent(name), type(named[name])) for name in found}

    def beside(name: str) -> bool:
        alike = (_parent(name), type(named[name])) in kinds and calls.get(named[name], 0) == 1
        return bool(name) and alike and not any(own.startswith(f"{name}.") for own in found)

    return {name: found.get(name, ()) for name in named if name in found or beside(name)}


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
