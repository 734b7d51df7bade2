"""The wiring of a network, from calls in which its channels are followed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
from torch import nn

from tombola.doors import DoorError
from tombola.errors import TombolaError
from tombola.structure.channel_map import moves_channels
from tombola.structure.declared_parts import Part, axis_groups
from tombola.structure.graph import Probe, traced
from tombola.structure.layers import NORMS, channels, entering, inputs, is_linear, is_producer
from tombola.structure.links import Links
from tombola.structure.marks import Marks
from tombola.structure.numbered_layers import NumberedLayers
from tombola.structure.partial_norm import norm_form
from tombola.structure.recurrent_layers import RECURRENT
from tombola.structure.wiring import INPUTS, Wiring
from tombola.structure.wiring_assembly import Assembly
from tombola.structure.wiring_draft import WiringDraft
from tombola.structure.written_widths import WRITTEN, written_channels
from tombola.tickets import modules_of
from tombola.tickets.torch_private import own_parameters

_EARLIER: WeakKeyDictionary[nn.Module, dict[bool, tuple[Hashable, Wiring]]] = WeakKeyDictionary()


def wiring_of(
    model: nn.Module, probe: Probe, parts: Sequence[Part] = (), *, untraced: bool = False, streams: bool = False
) -> Wiring:
    """All channels of a network and what each feeds, from calls on an example.

    A convolution or linear layer has a group of its outputs, which includes the norm that only follows it, and a group
    `<name> inputs`. Other norms, depthwise convolutions and parameters that scale channels have one group, modules that
    move channels two.

    Args:
        model: the network; it stays as it is.
        probe: calls it on an example of its inputs.
        parts: parts whose units are known by names; where the trace cannot follow their channels, the parts count.
        untraced: whether the parts alone will do if the network cannot be traced.
        streams: whether the channels of layer and RMS norms are followed one by one, and embeddings, so that the
            streams of transformers can be narrower.

    Raises:
        TombolaError: if the network cannot be traced.
    """
    try:
        seen = _read(model, probe, streams)
        draft = seen.draft()
        if seen.is_sized or seen.links.guessed or streams:
            for name, channels in written_channels(model, probe, draft.done(), seen.links).items():
                draft.hold(name, channels, WRITTEN)
        _EARLIER.setdefault(model, {})[streams] = _form(model), draft.done()
    except DoorError:
        raise
    except TombolaError:
        if not (untraced and parts):
            raise
        draft = WiringDraft()
    for part in parts:
        _add_part(draft, part, model)
    return draft.done()


def earlier_wiring(model: nn.Module, *, streams: bool = False) -> Wiring | None:
    """The wiring of a network, without parts, as the last call of `wiring_of` traced it.

    Whatever is cut by it must be compared with the network, whose code may take another way since.

    Args:
        model: the network.
        streams: see `wiring_of`.

    Returns:
        The wiring; None if there was no call, or the network has other modules or shapes since.
    """
    form, wiring = _EARLIER.get(model, {}).get(streams, (None, None))
    return wiring if form == _form(model) else None


def _form(model: nn.Module) -> Hashable:
    """What the wiring of a network depends on, beside its code."""
    return tuple(
        (name, id(module), tuple(None if own is None else own.shape for own in own_parameters(module).values()))
        for name, module in modules_of(model).items()
    )


def _add_part(draft: WiringDraft, part: Part, model: nn.Module) -> None:
    """Add the axes of a part that the trace does not know; each of its units can only be cut as a whole."""
    axes = list(axis_groups(part, model))
    *makers, taker, outputs = [group.name for group, _ in axes]
    if all(name in draft.spans for name in (*makers, taker)) and not draft.held(makers):
        return
    known = [name for name in (*makers, taker) if name in draft.spans]
    draft.release([name for name in known if name != taker], [taker] if taker in known else [])
    for group, norm in axes:
        draft.put(group)
        if norm is not None:
            draft.norms[group.name] = norm
    spans = [draft.spans[name] for name in (*makers, taker)]
    first = spans[0].start
    for span in spans:
        draft.tie([(first + place - place % part.width, channel) for place, channel in enumerate(span)])
    draft.flow(zip(spans[-2], spans[-1], strict=True))
    if outputs not in known and outputs not in draft.traced:
        draft.connect_to_pinned(draft.spans[outputs])


def _read(model: nn.Module, probe: Probe, streams: bool) -> Assembly:
    layers = NumberedLayers.of(model, streams)
    every = modules_of(model)
    weighted = [name for name, own in every.items() if is_producer(own) or isinstance(own, (*NORMS, *RECURRENT))]
    norms = {name: form.axis for name, own in layers.modules.items() if streams and (form := norm_form(own))}
    links = traced(model, probe, layers.marks_of, layers.spans, weighted, norms)
    for name, module in layers.modules.items():
        if moves_channels(module):
            before, after = layers.spans[entering(name)], layers.spans[name]
            links.flows += [
                np.array([[before[s], to] for s, to in zip(module.sources, after, strict=True) if s is not None], int)
                .reshape(-1, 2)
                .T
            ]
    links.ties += list(layers.ties())
    for name in weighted:
        if name not in links.met:
            _hold_readable(every[name], layers, links)
    return Assembly(model, layers, links)


def _hold_readable(unseen: nn.Module, layers: NumberedLayers, links: Links) -> None:
    """Keep whole what a layer that no call shows may read: whatever has as many channels as it takes."""
    size = inputs(unseen) if is_producer(unseen) or isinstance(unseen, RECURRENT) else channels(unseen)
    for name, span in layers.spans.items():
        flat = (
            is_linear(unseen) and size % len(span) == 0 and round((size // len(span)) ** 0.5) ** 2 * len(span) == size
        )
        if not name.endswith(INPUTS) and (len(span) == size or flat):
            links.pin(Marks((np.array(span),)), f"'{type(unseen).__name__}', which is not called")
