"""Calls of a copy of a network, in which its channels are followed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.nested import tensors_in
from tombola.structure.channel_map import moves_channels
from tombola.structure.links import Links
from tombola.structure.marks import Marks, along
from tombola.structure.meta_device import meta_twin
from tombola.structure.outputs import outputs_in
from tombola.structure.random_state import own_random_state
from tombola.structure.recurrent_layers import is_recurrent
from tombola.structure.recurrent_trace import follow_recurrent
from tombola.structure.tracer import Tracer
from tombola.tickets import bare, check_whole, copied, device_of, names_of, recomputable

Probe = Callable[[nn.Module], Any]
"""Calls a model on an example of its inputs."""

Spans = Mapping[str, range]
"""By the name of a group of channels their numbers."""

MarksOf = Callable[[nn.Module], Mapping[int, Marks]]
"""The marks of a network's parameters and buffers, by their ids."""


def traced(
    model: nn.Module,
    probe: Probe,
    marks_of: MarksOf,
    spans: Spans,
    layers: Collection[str],
    norms: Mapping[str, int],
) -> Links:
    """Call copies of the model and follow their channels.

    Args:
        model: the network; it stays as it is.
        probe: calls it on an example of its inputs.
        marks_of: gives the marks of a copy's parameters and buffers.
        spans: the numbers of the channels of each group.
        layers: the names of all layers and norms. If one is not called, the network is called in training mode too.
        norms: the axes of layer and RMS norms, by name, whose channels are followed one by one.

    Raises:
        TombolaError: if the call fails or gives no tensor.
    """
    check_whole(model, "a trace of its channels")
    reason = ""
    # On the meta device nothing is computed; a network whose path depends on values needs a device that has them.
    for twin_of in (meta_twin, copied):
        links = Links()
        try:
            _follow(bare(twin_of(model)).eval(), probe, marks_of, spans, layers, norms, links)
        except TombolaError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            continue
        if not set(layers) <= links.met:
            more = Links(met=set(links.met))
            try:
                _follow(bare(twin_of(model)).train(), probe, marks_of, spans, layers, norms, more)
            except Exception:  # the example may be too small for training, as one sample is for batch norm
                return links
            links.extend(more)
        return links
    raise TombolaError(f"the network's channels could not be traced ({reason}); prune weights instead of channels")


def _follow(
    twin: nn.Module,
    probe: Probe,
    marks_of: MarksOf,
    spans: Spans,
    layers: Collection[str],
    norms: Mapping[str, int],
    links: Links,
) -> None:
    names = names_of(twin)
    tracer = Tracer(links, marks_of(twin))

    def called(module: nn.Module, args: Any, kwargs: Any, _: Any) -> None:
        links.met.add(names[module])
        if any(t.ndim > 2 for t in tensors_in((args, kwargs))):
            links.deep.add(names[module])

    for module, name in names.items():
        if name in spans or name in layers:
            module.register_forward_hook(called, with_kwargs=True)
        if moves_channels(module):
            _follow_map(module, name, tracer, spans, links)
        elif is_recurrent(module) and name in spans:
            follow_recurrent(module, name, tracer, spans, links)
        elif name in norms:
            _follow_norm(module, name, norms[name], tracer, spans, links)
    with own_random_state(device_of(twin)), torch.no_grad(), recomputable(), _plainly(), tracer:
        links.outputs = outputs_in(probe(twin))
    if not links.outputs:
        raise TombolaError("the network gives no tensor from which its channels could be traced; prune weights")
    for output in links.outputs:
        links.pin(tracer.of(output), "")


def _follow_map(module: Any, name: str, tracer: Tracer, spans: Spans, links: Links) -> None:
    """Take a module that says where it moves channels as one operation."""
    taken, given = (np.array(spans[group]) for group in (f"{name} inputs", name))

    def enter(_: nn.Module, args: Any) -> None:
        links.consume(tracer.of(args[0]), 1, taken, type(module).__name__)
        tracer.paused = True

    def leave(_: nn.Module, args: Any, output: Tensor) -> None:
        tracer.paused = False
        tracer.mark(output, Marks((along(given, 1, output.ndim),), origin=name))

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave)


def _follow_norm(module: nn.Module, name: str, axis: int, tracer: Tracer, spans: Spans, links: Links) -> None:
    """Take a norm of all channels as one operation, which stays what it is with fewer of them."""
    channels = np.array(spans[name])

    def enter(_: nn.Module, args: Any) -> None:
        marks = tracer.of(args[0])
        links.consume(marks, axis % args[0].ndim, channels, type(module).__name__)
        if marks is not None:  # each channel is in the statistics of all, also where the norm gives none for it
            links.need(marks)
            if marks.lit:  # a dead one is not zero there, and would be missed
                links.hold(np.concatenate([channels, *(own.ravel() for own in marks.places)]), type(module).__name__)
        links.follows.setdefault(name, []).append("" if marks is None else marks.origin)
        tracer.paused = True

    def leave(_: nn.Module, args: Any, output: Tensor) -> None:
        tracer.paused = False
        tracer.mark(output, Marks((along(channels, axis % output.ndim, output.ndim),), origin=name))

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave)


@contextmanager
def _plainly() -> Generator[None]:
    """Inside, attention is computed step by step, and torch's notes about a trace are not heard."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
