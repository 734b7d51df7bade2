"""Units inside a part of a network that no trace is needed for: attention heads, hidden neurons, declared channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import nn

from tombola.errors import TombolaError
from tombola.structure.channel_map import ChannelMap
from tombola.structure.layers import (
    NORMS,
    channels,
    entering,
    entering_slices,
    has_weight,
    inputs,
    is_known,
    is_producer,
    leaving_slices,
    shared,
)
from tombola.structure.units import Slice, UnitGroup
from tombola.tickets import joined, modules_of, unwrapped
from tombola.tickets.torch_private import children_of

Kind = Literal["head", "neuron", "channel"]
KINDS: tuple[Kind, ...] = get_args(Kind)

PROJECTIONS = (("query", "key", "value"), ("q_lin", "k_lin", "v_lin"), ("q_proj", "k_proj", "v_proj"))
"""What the projections of an attention module are called: in BERT and its kin, DistilBERT, most others."""

MIXERS = ("out", "out_lin", "out_proj", "o_proj", "proj")
"""What the layer that mixes the heads is called, where the attention module has it."""

HIDDEN = (
    (("intermediate.dense",), "output.dense"),
    (("gate_proj", "up_proj"), "down_proj"),
    (("lin1",), "lin2"),
    (("linear1",), "linear2"),
    (("fc1",), "fc2"),
)
"""What the two layers of a feed-forward part are called, a gate before the layer that it multiplies."""

HEAD_SIZES = ("head_size", "attention_head_size", "head_dim")
HEAD_COUNTS = ("heads", "num_heads", "num_attention_heads", "n_heads")


@dataclass(frozen=True)
class Part:
    """Units of one part of a network that live and die alone: what some layers make and one layer takes.

    makes: the layers of which each unit owns `width` consecutive outputs, the last of them feeding `takes`; a norm
    among them is the previous layer's. takes: the layer of which each unit owns as many inputs. Names are those of
    modules. A module of yours that has an attribute `inner`, a sequence of these with names below it, declares them.
    """

    kind: Kind
    makes: tuple[str, ...]
    takes: str
    width: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TombolaError(f"there are no units of kind {self.kind!r}; give {', '.join(KINDS)}")
        if isinstance(self.makes, str) or not self.makes or self.width < 1:
            raise TombolaError(
                f"units into '{self.takes}' need the names of the layers that make them, as makes=('conv1', 'bn1'), "
                "and a width of at least 1"
            )


def parts_of(model: nn.Module) -> tuple[Part, ...]:
    """What is inside the parts of a network: as declared, and the attention and feed-forward parts that are known.

    Parts that share a layer or a parameter with others are left out. Raises TombolaError for a declaration that does
    not fit its module.
    """
    named = modules_of(model)
    elsewhere, found = shared(model), {}
    for name, module in named.items():
        declared = [_placed(own, name) for own in _declared(name, module)]
        for own in declared:
            _check(own, named)
        known = [_placed(own, name) for own in (*_heads(module), *_neurons(module))]
        for own in (*declared, *(part for part in known if named.keys() >= {*part.makes, part.takes})):
            if own.takes not in found and not elsewhere & {*own.makes, own.takes}:
                found[own.takes] = own
    return tuple(found.values())


def _placed(own: Part, name: str) -> Part:
    """With the names that layers below a module of this name have in the network."""
    return replace(own, makes=tuple(joined(name, part) for part in own.makes), takes=joined(name, own.takes))


def unit_group(inner: Part, model: nn.Module) -> UnitGroup:
    """The units as a group named by the layer that takes them, with their rows, norms and columns."""
    named = modules_of(model)
    rows = [part for name in inner.makes for part in leaving_slices(name, named[name])]
    parts = [*rows, *entering_slices(inner.takes, named[inner.takes])]
    size = inputs(named[inner.takes]) // inner.width
    return UnitGroup(inner.takes, size, tuple(_widened(part, inner.width) for part in parts))


def axis_groups(inner: Part, model: nn.Module) -> Iterator[tuple[UnitGroup, str | None]]:
    """The axes that a cut of these units goes through, each with the norm that follows: as channels, one by one."""
    named = modules_of(model)
    for name, norm in _with_norms(inner, named):
        slices = leaving_slices(name, named[name], scored=inner.width == 1)
        if norm is not None:
            slices += leaving_slices(norm, named[norm])
        yield UnitGroup(name, channels(named[name]), tuple(slices)), norm
    taker = named[inner.takes]
    yield UnitGroup(entering(inner.takes), inputs(taker), tuple(entering_slices(inner.takes, taker))), None
    given = leaving_slices(inner.takes, taker, scored=False)
    yield UnitGroup(inner.takes, channels(taker), tuple(given)), None


def query_key_weights(model: nn.Module) -> tuple[str, ...]:
    """The weights of all query and key projections, by name; TombolaError if there are none that are known."""
    heads = [own for own in parts_of(model) if own.kind == "head"]
    found = [f"{name}.weight" for own in heads for name in own.makes[:2]]
    for name, module in modules_of(model).items():
        found += [f"{joined(name, own)}.weight" for own in _projections(module)[:2]]
    if not found:
        raise missing("head", "query and key weights")
    return tuple(dict.fromkeys(found))


def recount(model: nn.Module, inner: Part, units: int) -> None:
    """Let an attention module say how many heads it has."""
    parent, _, _ = inner.makes[0].rpartition(".")
    attention = modules_of(model)[parent]
    for name, value in {**dict.fromkeys(HEAD_COUNTS, units), "all_head_size": units * inner.width}.items():
        if isinstance(getattr(attention, name, None), int):
            setattr(attention, name, value)


def missing(kind: Kind, what: str) -> TombolaError:
    return TombolaError(
        f"the network has no {what} that are known; give the module that holds them an attribute "
        f"inner = [tb.structure.Part({kind!r}, makes=(…), takes=…, width=…)] with the names of its layers"
    )


def _declared(name: str, module: nn.Module) -> Sequence[Part]:
    own = vars(module).get("inner", getattr(type(module), "inner", ()))
    if isinstance(own, Part) or (isinstance(own, tuple | list) and any(isinstance(part, Part) for part in own)):
        if not isinstance(own, tuple | list) or not all(isinstance(part, Part) for part in own):
            raise TombolaError(f"the attribute inner of '{name}' is not a list of tb.structure.Part alone; make it one")
        return own
    return ()


def _heads(module: nn.Module) -> Iterator[Part]:
    """Attention with its own output layer, or inside a module as `self` beside `output.dense`."""
    held = _child(module, "self")
    before, attention = ("self.", held) if held is not None else ("", module)
    names = _projections(attention)
    takes = "output.dense" if before else next((n for n in MIXERS if _linear(module, n) is not None), "")
    mixer = _linear(module, takes)
    if names and mixer is not None:
        sizes = {getattr(attention, name).out_features for name in names}
        width = _head_size(attention, mixer.in_features)
        if width and sizes == {mixer.in_features}:
            yield Part("head", tuple(before + name for name in names), takes, width)


def _projections(module: nn.Module) -> tuple[str, ...]:
    """What an attention module calls its query, key and value; nothing if it is none."""
    fits = (names for names in PROJECTIONS if all(_linear(module, name) is not None for name in names))
    return next(fits, ())


def _head_size(attention: Any, total: int) -> int:
    sizes = [getattr(attention, name, None) for name in HEAD_SIZES]
    counts = [getattr(attention, name, None) for name in HEAD_COUNTS]
    sizes += [total // count for count in counts if isinstance(count, int) and count]
    return next((size for size in sizes if isinstance(size, int) and size and not total % size), 0)


def _neurons(module: nn.Module) -> Iterator[Part]:
    for makes, takes in HIDDEN:
        layers, taker = [_linear(module, name) for name in makes], _linear(module, takes)
        if taker is not None and all(own is not None and own.out_features == taker.in_features for own in layers):
            yield Part("neuron", makes, takes)


def _child(module: nn.Module, name: str) -> nn.Module | None:
    own = children_of(module).get(name)
    return None if own is None else unwrapped(own)


def _linear(module: nn.Module, path: str) -> nn.Linear | None:
    own: nn.Module | None = module
    for part in path.split("."):
        own = None if own is None else _child(own, part)
    return own if isinstance(own, nn.Linear) and has_weight(own) else None


def _with_norms(inner: Part, named: Mapping[str, nn.Module]) -> Iterator[tuple[str, str | None]]:
    """The layers that make units, each with the norm that is named after it."""
    for name, after in zip(inner.makes, (*inner.makes[1:], ""), strict=True):
        if not isinstance(named[name], NORMS):
            yield name, after if isinstance(named.get(after), NORMS) and after else None


def _check(inner: Part, named: Mapping[str, Any]) -> None:
    layers = (*inner.makes, inner.takes)
    lost = next((name for name in layers if name not in named), None)
    if lost is not None:
        raise TombolaError(f"units of kind {inner.kind!r} are declared with '{lost}', which the network does not have")
    odd = next((name for name in layers if not is_known(named[name]) or isinstance(named[name], ChannelMap)), None)
    if odd is not None or not is_producer(named[inner.takes]):
        raise TombolaError(
            f"units of kind {inner.kind!r} are declared with '{odd or inner.takes}', a "
            f"{type(named[odd or inner.takes]).__name__}; name convolutions and linear layers, and norms behind one"
        )
    total = inputs(named[inner.takes])
    odd = next((name for name in inner.makes if channels(named[name]) != total), None)
    if odd is not None or total % inner.width:
        other = f"'{odd}' makes {channels(named[odd])}" if odd else f"units are {inner.width} wide"
        raise TombolaError(
            f"units of kind {inner.kind!r} are declared into '{inner.takes}', which takes {total}, but {other}; "
            "declare layers that fit"
        )


def _widened(part: Slice, width: int) -> Slice:
    flat = [place for own in part.positions for place in own]
    return replace(part, positions=tuple(tuple(flat[i : i + width]) for i in range(0, len(flat), width)))
