"""Takes a recurrent layer as one operation when a network's channels are followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tombola.nested import tensors_in
from tombola.structure.layers import entering
from tombola.structure.links import Links
from tombola.structure.marks import Marks, along
from tombola.structure.recurrent_layers import STATE
from tombola.structure.tracer import Tracer


def follow_recurrent(module: Any, name: str, tracer: Tracer, spans: Mapping[str, range], links: Links) -> None:
    """Note what a recurrent layer takes and gives, whenever it is called.

    A first state other than zeros is read as the one of a step is: a unit can go with what makes its first state. Where
    that is unknown all units stay. Projections (`proj_size`) stay whole; behind them are the units that can go.

    Args:
        module: the layer, of a copy of the network.
        name: its name.
        tracer: follows the channels.
        spans: the numbers of the channels of each group.
        links: where it is noted which channels meet.
    """
    units, taken, read = (np.array(spans[group]) for group in (name, entering(name), entering(name + STATE)))
    kind, projected = type(module).__name__, getattr(module, "proj_size", 0) > 0
    reason = f"the first state of {kind}"

    def starts(state: Tensor, number: int) -> None:
        marks = tracer.of(state)
        if marks is not None and marks.scales:
            links.met.add(marks.origin)
        if projected and number == 0:
            links.pin(marks, reason)
        elif marks is not None and (not marks.lit or tracer.is_zero(state)):
            links.consume(marks, state.ndim - 1, read, reason)
        elif not tracer.is_zero(state):
            links.pin(marks, reason)
            links.hold(units, reason)

    def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
        x, *states = [*args, *(kwargs[own] for own in ("input", "hx") if own in kwargs)]
        x = x.data if isinstance(x, PackedSequence) else x
        links.met.add(name + STATE)
        links.consume(tracer.of(x), x.ndim - 1, taken, kind)
        links.consume(Marks((units,)), 0, read, kind)
        for number, state in enumerate(tensors_in(states)):
            starts(state, number)
        tracer.paused = True

    def mark(tensor: Tensor, repeats: int = 1) -> None:
        tracer.mark(tensor, Marks((along(np.tile(units, repeats), tensor.ndim - 1, tensor.ndim),)))

    def leave(_: nn.Module, args: Any, output: Any) -> None:
        tracer.paused = False
        if isinstance(module, nn.RNNBase):
            sequence, states = output
            if not projected:
                mark(sequence.data if isinstance(sequence, PackedSequence) else sequence, 1 + module.bidirectional)
        else:
            states = output
        hidden, *cells = tensors_in(states)
        for tensor in cells if projected else [hidden, *cells]:
            mark(tensor)

    module.register_forward_pre_hook(enter, with_kwargs=True)
    module.register_forward_hook(leave)
