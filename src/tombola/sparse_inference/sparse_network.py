"""A copy of a trained network that multiplies with kept weights alone, wherever measurements show that this pays."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, fx, nn

from tombola.errors import TombolaError
from tombola.scores import Inputs, forward
from tombola.sparse_inference.compiler import why_not_compiled
from tombola.sparse_inference.execution import SparseProgram
from tombola.sparse_inference.layer_timing import LayerTiming, interleaved
from tombola.sparse_inference.segments import Segment, segment, segments_of, traced
from tombola.sparse_inference.trial import Trial, agree, faster_part, in_both_layouts
from tombola.structure import outputs_in
from tombola.tickets import (
    Mask,
    Ticket,
    bare,
    check_fits,
    check_whole,
    device_of,
    joined,
    modules_of,
    parameters_of,
    zeros_of,
)

LAYERS = (nn.Linear, nn.Conv2d)


class SparsityWarning(UserWarning):
    """Some layers do not run faster sparse."""


@dataclass(frozen=True)
class SparseCopy:
    """What came of a network that was tried sparse.

    Args:
        network: the copy; None if nothing is faster sparse.
        timings: of the masked layers, in the network's order.
        seconds: of a call of the whole network: "dense", masked and in the faster layout, and "sparse"; nothing if
            there was no example to call it with.
    """

    network: nn.Module | None
    timings: tuple[LayerTiming, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """Which layers stay dense, and why; nothing if none does."""
        reasons: dict[str, list[str]] = {}
        for timing in self.timings:
            if timing.chosen == "dense":
                reasons.setdefault(timing.why, []).append(f"{timing.layer or 'the layer'} ({timing.density:.1%})")
        told = [f"{_listed(layers)}: {why}" for why, layers in reasons.items()]
        return f"sparsity saves no time in {'; '.join(told)}" if told else ""


def sparse(model: nn.Module, ticket: Ticket | Mask, example: Inputs | None = None, *, batch: int = 256) -> nn.Module:
    """Make a copy of a trained network, for inference, that multiplies with kept weights alone where that is faster.

    The network's graph is traced. Linear layers and convolutions, with the norms, sums, ReLUs and pools between them,
    run as one program: 8 to 64 samples lie side by side, and sums stay in registers over all kept weights of a
    channel. The kernels are compiled by the system's C compiler on first use, or else by numba (extra `fast`). What
    cannot be traced runs layer by layer. Each layer is measured at its real shape and number of threads, beside
    PyTorch in both layouts.

    Args:
        model: the trained network, in float32 on the CPU.
        ticket: its ticket or mask.
        example: a batch as the network will get it: a tensor, or a tuple or mapping of arguments. Without one, only
            linear layers are tried, each by itself.
        batch: the number of samples in a call, where there is no example.

    Returns:
        The copy, whose outputs are the masked network's to 1e-4 of the largest one; or the model itself, if nothing is
        faster sparse. A SparsityWarning names the layers that stay dense, and why.

    Raises:
        TombolaError: see `sparse_copy`.

    Examples:
        >>> model = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU())
        >>> mask = Mask.of({"0.weight": torch.eye(1024, dtype=torch.bool)})
        >>> type(sparse(model, mask, torch.randn(64, 1024))).__name__
        'SparseProgram'
    """
    found = sparse_copy(model, ticket, example, batch=batch)
    if found.summary:
        unchanged = "; the model is returned unchanged" if found.network is None else ""
        more = ". Removing whole channels always does"
        warnings.warn(f"{found.summary}{unchanged}{more}", SparsityWarning, stacklevel=2)
    return model if found.network is None else found.network


@torch.no_grad()
def sparse_copy(
    model: nn.Module, ticket: Ticket | Mask, example: Inputs | None = None, *, batch: int = 256
) -> SparseCopy:
    """Try a network sparse, and tell what each layer takes; arguments as of `sparse`.

    Returns:
        The copy, if it is faster, and all times.

    Raises:
        TombolaError: the network is not in float32 on the CPU, or the mask covers no layer that could be tried.
    """
    check_whole(model, "a sparse copy of it")
    network, tried = _checked(model, zeros_of(ticket), example, batch)
    if why := _no_engine():
        return SparseCopy(None, tried.found(why))
    graph = traced(network, example) if isinstance(example, Tensor) else None
    faster = None if graph is None else _by_segments(graph, tried)
    # Layers in no part of the graph that the kernels know, or of a network that has no graph, by themselves.
    inputs = _inputs(network, tried.densities.keys() - tried.timings.keys(), example, batch)
    faster = _by_layers(copy.deepcopy(network) if faster is None else faster, inputs, tried) or faster
    found = tried.found("the kernels know no such layer, or it never ran")
    if faster is None:
        return SparseCopy(None, found)
    faster.requires_grad_(False)
    if example is None:
        return SparseCopy(faster, found)
    seconds = _seconds(network, faster, example)
    if seconds["sparse"] < seconds["dense"]:
        return SparseCopy(faster, found, seconds)
    why = "what layers gain, the changes of layout around them cost"
    return SparseCopy(None, tuple(replace(timing, chosen="dense", why=timing.why or why) for timing in found), seconds)


def _listed(layers: Sequence[str]) -> str:
    most = 4
    return ", ".join(layers[:most]) + (f" and {len(layers) - most} more" if len(layers) > most else "")


def _checked(model: nn.Module, mask: Mask, example: Inputs | None, batch: int) -> tuple[nn.Module, Trial]:
    """A copy of the masked network, and its masked layers."""
    if batch < 1:
        raise TombolaError(f"batch is {batch}; give the number of samples that a call will have")
    check_fits(mask, parameters_of(model))
    tried = LAYERS if example is not None else (nn.Linear,)
    layers = {
        name: float(mask[joined(name, "weight")].float().mean())
        for name, layer in modules_of(model).items()
        if type(layer) in tried and joined(name, "weight") in mask
    }
    if not layers:
        more = "" if example is not None else ", or convolutions with an example of the network's input"
        raise TombolaError(f"the ticket masks no linear layer{more}, and only those are run sparse")
    if device_of(model).type != "cpu" or any(own.dtype != torch.float32 for own in model.parameters()):
        raise TombolaError("a sparse network runs in float32 on the CPU; move the model there with model.cpu().float()")
    network = bare(copy.deepcopy(model)).eval()
    for name, parameter in parameters_of(network).items():
        if name in mask:
            parameter.data[~mask[name]] = 0.0
    return network, Trial(layers)


def _no_engine() -> str:
    """Why nothing sparse can run here; nothing if it can."""
    why = why_not_compiled()
    return f"{why}; install gcc, or numba with pip install 'tombola[fast]'" if why and not find_spec("numba") else ""


def _by_segments(graph: fx.GraphModule, tried: Trial) -> nn.Module | None:
    """The network with programs for the parts that gain; None if none does."""
    modules = dict(graph.named_modules())
    chosen: list[tuple[Segment, SparseProgram]] = []
    for whole in segments_of(graph, set(tried.densities)):
        layers = [node for node in whole.nodes if str(node.target) in tried.densities]
        parts = [whole, *(filter(None, (segment([node], modules) for node in layers)) if len(whole.layers) > 1 else ())]
        for part in parts:
            program = faster_part(part, part.dense(graph), torch.randn(part.source.meta["value"]), tried)
            if program is not None:
                chosen.append((part, program))
            if program is not None and part is whole:
                break
    return _replaced(graph, chosen) if chosen else None


def _by_layers(network: nn.Module, inputs: Mapping[str, Tensor], tried: Trial) -> nn.Module | None:
    """The network with single layers replaced where that gains; None if it does nowhere."""
    modules, found = modules_of(network), False
    for name, x in inputs.items():
        graph = traced(nn.Sequential(modules[name]), x)
        for own in () if graph is None else segments_of(graph, {"0"}):
            program = faster_part(own, modules[name], x, tried, name)
            if program is not None:
                found = True
                network = put(network, name, program)
    return network if found else None


def put(network: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """The network with a module in the place of that name, which is the network itself if the name is empty."""
    if not name:
        return module
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)
    return network


def _replaced(graph: fx.GraphModule, chosen: Sequence[tuple[Segment, SparseProgram]]) -> nn.Module:
    """The network with programs in place of parts; the program itself if it is all of it."""
    for number, (part, program) in enumerate(chosen):
        ends = [node for node in graph.graph.nodes if node.op == "output"]
        if part.source.op == "placeholder" and ends[0].args[0] is part.result:
            return program
        name = f"sparse{number}"
        graph.add_submodule(name, program)
        with graph.graph.inserting_after(part.nodes[-1]):
            node = graph.graph.call_module(name, (part.source,))
        part.result.replace_all_uses_with(node)
        for old in reversed(part.nodes):
            graph.graph.erase_node(old)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def _inputs(network: nn.Module, layers: Collection[str], example: Inputs | None, batch: int) -> dict[str, Tensor]:
    """What each layer gets when the network is called with the example, as (samples, features) where it is linear."""
    modules, inputs = modules_of(network), {}
    if example is None:
        linear = {name: layer for name, layer in modules.items() if name in layers and isinstance(layer, nn.Linear)}
        return {name: torch.randn(batch, layer.in_features) for name, layer in linear.items()}

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda layer, given: inputs.setdefault(name, given[0].detach())

    hooks = [modules[name].register_forward_pre_hook(note(name)) for name in layers]
    try:
        forward(network, example)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: x.reshape(-1, x.shape[-1]) if isinstance(modules[name], nn.Linear) else x for name, x in inputs.items()
    }


def _seconds(network: nn.Module, faster: nn.Module, example: Inputs) -> dict[str, float]:
    """What a call of both takes; TombolaError if they compute different things."""
    expected, found = forward(network, example), forward(faster, example)
    for one, other in zip(outputs_in(expected), outputs_in(found), strict=True):
        if not agree(other, one):
            raise TombolaError("the sparse network's outputs differ from the masked one's; please report this")
    calls: dict[str, Callable[[], object]] = {"dense": lambda: forward(network, example)}
    if isinstance(example, Tensor):
        calls = in_both_layouts(network, example)
    seconds = interleaved(calls | {"sparse": lambda: forward(faster, example)})
    return {"dense": min(value for how, value in seconds.items() if how != "sparse"), "sparse": seconds["sparse"]}
