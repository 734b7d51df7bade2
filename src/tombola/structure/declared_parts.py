"""Units that are found by names, without a trace: attention heads, hidden neurons, declared channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import nn

from tombola.errors import TombolaError
from tombola.structure.channel_map import moves_channels
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
from tombola.structure.units import UnitGroup
from tombola.tickets import joined, modules_of, unwrapped
from tombola.tickets.torch_private import children_of, own_parameters

Kind = Literal["head", "neuron", "channel"]
KINDS: tuple[Kind, ...] = get_args(Kind)

PROJECTIONS = (("query", "key", "value"), ("q_lin", "k_lin", "v_lin"), ("q_proj", "k_proj", "v_proj"))
"""Names of the query, key and value projections of attention modules: in BERT, in DistilBERT, in most others."""

MIXERS = ("out", "out_lin", "out_proj", "o_proj", "proj")
"""Names of the layer that mixes the heads, where the attention module holds it."""

HIDDEN = (
    (("intermediate.dense",), "output.dense"),
    (("gate_proj", "up_proj"), "down_proj"),
    (("lin1",), "lin2"),
    (("linear1",), "linear2"),
    (("fc1",), "fc2"),
)
"""Names of the layers of feed-forward parts: those that make the hidden neurons, a gate first; the one behind."""

HEAD_SIZES = ("head_size", "attention_head_size", "head_dim")
HEAD_COUNTS = ("heads", "num_heads", "num_attention_heads", "n_heads")


@dataclass(frozen=True)
class Part:
    """Units that live and die alone: some layers make them and one layer takes them.

    A module of yours declares them by an attribute `inner`, a list of parts whose names are relative to it.

    Args:
        kind: `head`, `neuron` or `channel`; units of one kind compete with each other.
        makes: names of the layers of which each unit owns `width` consecutive outputs; the last one feeds `takes`. A
            norm among them belongs to the layer before it.
        takes: name of the layer of which each unit owns `width` consecutive inputs.
        width: outputs a unit, as the size of an attention head.

    Examples:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> model.inner = [Part("neuron", makes=("0",), takes="2")]
        >>> parts_of(model)
        (Part(kind='neuron', makes=('0',), takes='2', width=1),)
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
    """The parts of a network whose units are known without a trace.

    They are those that modules declare (`Part`), and the attention and feed-forward parts whose layers have names that
    are known. Parts that share a layer or a parameter with others are left out.

    Raises:
        TombolaError: if a declaration does not fit its module.
    """
    modules = modules_of(model)
    elsewhere, parts = shared(model), {}
    of_module = declared_parts(modules)
    for name, module in modules.items():
        declared = of_module.get(name, ())
        known = [_with_full_names(part, name) for part in _known(module)]
        for part in (*declared, *(part for part in known if modules.keys() >= {*part.makes, part.takes})):
            if part.takes not in parts and not elsewhere & {*part.makes, part.takes}:
                parts[part.takes] = part
    return tuple(parts.values())


def declared_parts(modules: Mapping[str, nn.Module]) -> dict[str, list[Part]]:
    """The parts that modules declare, by the module's name, with the full names of their layers.

    Args:
        modules: the network's, by name.

    Raises:
        TombolaError: if a declaration does not fit its module.
    """
    found = {
        name: [_with_full_names(part, name) for part in _declared(name, module)] for name, module in modules.items()
    }
    for part in (part for declared in found.values() for part in declared):
        _check(part, modules)
    return {name: declared for name, declared in found.items() if declared}


def _with_full_names(part: Part, name: str) -> Part:
    """A part of the module of this name, with its layers' names in the network."""
    return replace(part, makes=tuple(joined(name, layer) for layer in part.makes), takes=joined(name, part.takes))


def axis_groups(inner: Part, model: nn.Module) -> Iterator[tuple[UnitGroup, str | None]]:
    """The axes that a cut of a part's units goes through, as groups of single channels.

    Returns:
        Each group with the name of the norm that follows it, if any: first the layers that make the units, then the
        inputs and at last the outputs of the layer that takes them.
    """
    modules = modules_of(model)
    for name, norm in _with_norms(inner, modules):
        slices = leaving_slices(name, modules[name], scored=inner.width == 1)
        if norm is not None:
            slices += leaving_slices(norm, modules[norm])
        yield UnitGroup(name, channels(modules[name]), tuple(slices)), norm
    taker = modules[inner.takes]
    yield UnitGroup(entering(inner.takes), inputs(taker), tuple(entering_slices(inner.takes, taker))), None
    outputs = leaving_slices(inner.takes, taker, scored=False)
    yield UnitGroup(inner.takes, channels(taker), tuple(outputs)), None


def query_key_weights(model: nn.Module) -> tuple[str, ...]:
    """The names of all query and key projections' weights; TombolaError if no attention is known."""
    heads = [part for part in parts_of(model) if part.kind == "head"]
    weights = [f"{name}.weight" for head in heads for name in head.makes[:2]]
    for name, module in modules_of(model).items():
        weights += [f"{joined(name, projection)}.weight" for projection in _projections(module)[:2]]
    if not weights:
        raise missing("head", "query and key weights")
    return tuple(dict.fromkeys(weights))


def missing(kind: Kind, what: str) -> TombolaError:
    """The error for a network that has no known units of a kind; what: their name in its sentence."""
    return TombolaError(
        f"the network has no {what} that are known; give the module that holds them an attribute "
        f"inner = [tb.structure.Part({kind!r}, makes=(…), takes=…, width=…)] with the names of its layers"
    )


def _declared(name: str, module: nn.Module) -> Sequence[Part]:
    # Not getattr(module, "inner"): a child of that name is no declaration, and wrappers pass attributes on.
    inner = vars(module).get("inner", getattr(type(module), "inner", ()))
    if isinstance(inner, Part) or (isinstance(inner, tuple | list) and any(isinstance(part, Part) for part in inner)):
        if not isinstance(inner, tuple | list) or not all(isinstance(part, Part) for part in inner):
            raise TombolaError(f"the attribute inner of '{name}' is not a list of tb.structure.Part alone; make it one")
        return inner
    return ()


def _heads(module: nn.Module) -> Iterator[Part]:
    """Attention with its own output layer, or inside a module as `self` beside `output.dense`."""
    below = _child(module, "self")
    prefix, attention = ("self.", below) if below is not None else ("", module)
    names = _projections(attention)
    takes = "output.dense" if prefix else next((n for n in MIXERS if _linear(module, n) is not None), "")
    mixer = _linear(module, takes)
    if names and mixer is not None:
        sizes = {getattr(attention, name).out_features for name in names}
        width = _head_size(attention, mixer.in_features)
        # Grouped-query attention, whose keys are fewer than its queries, is left out.
        if width and sizes == {mixer.in_features}:
            yield Part("head", tuple(prefix + name for name in names), takes, width)


def _projections(module: nn.Module) -> tuple[str, ...]:
    """An attention module's names for its query, key and value; empty for another module."""
    fits = (names for names in PROJECTIONS if all(_linear(module, name) is not None for name in names))
    return next(fits, ())


def _head_size(attention: Any, total: int) -> int:
    """The size of a head, from the module's attributes; 0 if they do not say it."""
    sizes = [getattr(attention, name, None) for name in HEAD_SIZES]
    counts = [getattr(attention, name, None) for name in HEAD_COUNTS]
    sizes += [total // count for count in counts if isinstance(count, int) and count]
    return next((size for size in sizes if isinstance(size, int) and size and not total % size), 0)


def _known(module: nn.Module) -> Iterator[Part]:
    """The parts of a module that are known by the names of its layers."""
    if children_of(module):
        yield from _heads(module)
        yield from _neurons(module)


def _neurons(module: nn.Module) -> Iterator[Part]:
    """The hidden neurons of a feed-forward part."""
    for makes, takes in HIDDEN:
        layers, taker = [_linear(module, name) for name in makes], _linear(module, takes)
        fits = taker is not None and all(own is not None and own.out_features == taker.in_features for own in layers)
        if taker is not None and fits and not _is_between(module, (*makes, takes), taker.in_features):
            yield Part("neuron", makes, takes)


def _is_between(module: nn.Module, layers: Sequence[str], size: int) -> bool:
    """Whether a norm or the like of this size may stand between layers of a module, where units meet."""
    known = {name.partition(".")[0] for name in layers}
    others = (own for name, own in children_of(module).items() if own is not None and name not in known)
    return any(p is not None and p.numel() == size for own in others for p in own_parameters(own).values())


def _child(module: nn.Module, name: str) -> nn.Module | None:
    child = children_of(module).get(name)
    return None if child is None else unwrapped(child)


def _linear(module: nn.Module, path: str) -> nn.Linear | None:
    """The linear layer at a path below a module; None if there is none, or its weight is computed anew in each call."""
    layer: nn.Module | None = module
    for name in path.split("."):
        layer = None if layer is None else _child(layer, name)
    return layer if isinstance(layer, nn.Linear) and has_weight(layer) else None


def _with_norms(inner: Part, modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, str | None]]:
    """The layers that make units, each with the norm that is listed after it."""
    for name, after in zip(inner.makes, (*inner.makes[1:], ""), strict=True):
        if not isinstance(modules[name], NORMS):
            yield name, after if isinstance(modules.get(after), NORMS) and after else None


def _check(inner: Part, modules: Mapping[str, Any]) -> None:
    layers = (*inner.makes, inner.takes)
    unknown = next((name for name in layers if name not in modules), None)
    if unknown is not None:
        raise TombolaError(
            f"units of kind {inner.kind!r} are declared with '{unknown}', which the network does not have"
        )
    odd = next((name for name in layers if not is_known(modules[name]) or moves_channels(modules[name])), None)
    if odd is not None or not is_producer(modules[inner.takes]):
        raise TombolaError(
            f"units of kind {inner.kind!r} are declared with '{odd or inner.takes}', a "
            f"{type(modules[odd or inner.takes]).__name__}; name convolutions and linear layers, and norms behind one"
        )
    total = inputs(modules[inner.takes])
    odd = next((name for name in inner.makes if channels(modules[name]) != total), None)
    if odd is not None or total % inner.width:
        other = f"'{odd}' makes {channels(modules[odd])}" if odd else f"units are {inner.width} wide"
        raise TombolaError(
            f"units of kind {inner.kind!r} are declared into '{inner.takes}', which takes {total}, but {other}; "
            "declare layers that fit"
        )
