"""Where attention heads may lie: the names, attributes and orders that networks use, as data, and what follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from torch import Tensor, nn

from tombola.structure.free_attention import WIDTH
from tombola.structure.mixing_layers import MixingLayer, layer_at, layers_below, sizes_of
from tombola.structure.placed_parts import Count, Place, PlacedPart
from tombola.tickets import joined

SEPARATE = (
    ("query", "key", "value"),
    ("q_lin", "k_lin", "v_lin"),
    ("q_proj", "k_proj", "v_proj"),
    ("query_proj", "key_proj", "value_proj"),
    ("q", "k", "v"),
    ("to_q", "to_k", "to_v"),
    ("wq", "wk", "wv"),
    ("w_q", "w_k", "w_v"),
    ("W_q", "W_k", "W_v"),
    ("linear_q", "linear_k", "linear_v"),
    ("queries", "keys", "values"),
    ("q_attn", "c_attn"),
    ("to_q", "to_kv"),
    ("q", "kv"),
    ("q_proj", "kv_proj"),
)
"""Names of the layers that make queries, keys and values, where they are several."""

FUSED = ("qkv", "c_attn", "query_key_value", "Wqkv", "to_qkv", "qkv_proj", "in_proj", "W_pack", "att_proj")
"""Names of the layer that makes all three."""

MIXERS = (
    *("out", "out_lin", "out_proj", "o_proj", "proj", "c_proj", "o", "dense", "output.dense", "to_out", "Wo", "wo"),
    *("w_o", "W_o", "linear_out", "proj_out", "output_proj", "fc_out", "out_project", "fc", "output"),
)
"""Names of the layer that mixes the heads."""

UNIT_MAJOR = ("query_key_value", "W_pack")
"""Fused layers that usually hold each head's query, key and value side by side, and not all queries first."""

SIZES = ("head_size", "attention_head_size", "head_dim", "key_value_proj_dim", "dim_head", "d_head", "d_k")
HEADS = (
    *("heads", "num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "nheads", "num_head", "n_attn_heads"),
    *("h", "H"),
)
GROUPS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "kv_heads", "num_kv", "n_kv_head", "num_query_groups")
QUERIES = ("num_key_value_groups", "n_rep", "num_queries_per_kv")
"""Attributes that say how many queries share a key."""
TOTALS = (
    *("all_head_size", "attn_dim", "inner_dim", "split_size", "val_attn_dim", "key_attn_dim", "all_head_dim"),
    *("attention_dim", "d_attn", "inner_size", "proj_size", "total_head_dim"),
)
WIDTHS = (
    "embed_dim",
    "hidden_size",
    "n_embd",
    "dim",
    "d_model",
    "emb_dim",
    "embed_size",
    "width",
    "emb_size",
    "hidden_dim",
)
"""Attributes that may be the width of all heads or that of the model, which are the same number at first."""

FIELDS = ("num_attention_heads", "num_heads", "n_head", "n_heads")
SIDES = ("encoder_attention_heads", "decoder_attention_heads")


MOST = 6
"""A module with more layers is not looked through for parts whose layers have other names."""


@dataclass(frozen=True)
class Heads:
    """The numbers of an attention.

    Args:
        heads: how many heads there are.
        size: of one, in the layer that mixes them.
        groups: how many keys there are, each of which serves as many queries.
    """

    heads: int
    size: int
    groups: int

    @property
    def units(self) -> int:
        """How many units can go alone: groups, or the queries of the only group."""
        return self.groups if self.groups > 1 else self.heads

    @property
    def queries(self) -> int:
        """How many heads go with a unit."""
        return self.heads // self.units

    def rows(self, layer: MixingLayer, major: bool, value: bool) -> list[Place] | None:
        """Where the units lie in what a layer makes; None if they cannot.

        Args:
            layer: the layer.
            major: whether what belongs to a unit lies side by side, and not all queries first.
            value: whether the layer makes values alone.
        """
        total, size, groups = self.heads * self.size, self.size, self.groups
        outs, role = layer.outs, "value" if value else "makes"
        if outs == total:
            return layer.rows(inner=self.queries * size, role=role)
        if groups == 1 < self.heads:
            if outs in (size, 2 * size):
                return []  # all queries share them
            return layer.rows(inner=size) if outs == total + 2 * size else None
        if groups < self.heads:
            if outs == total + 2 * groups * size and not major:
                sections = [(0, self.queries * size), (total, size), (total + groups * size, size)]
                return [own for start, inner in sections for own in layer.rows(inner=inner, start=start)]
            if outs == 2 * groups * size and not major:
                return layer.rows(inner=size, outer=2)
            return layer.rows(inner=outs // groups, role=role) if outs % groups == 0 else None
        if outs % total == 0 and not major:
            first = layer.rows(inner=size, outer=outs // total - 1)
            return first + layer.rows(inner=size, start=outs - total, role="value")
        return layer.rows(inner=outs // self.heads, role=role) if outs % self.heads == 0 else None


def head_candidates(
    modules: Mapping[str, nn.Module], name: str, order: Mapping[str, int]
) -> Iterator[tuple[PlacedPart, bool]]:
    """What the heads of a module may be, the likeliest first, and whether its names say so.

    Args:
        modules: the network's, by name.
        name: the module's.
        order: when each module was called first; empty if that is not known.
    """
    module = modules[name]
    if isinstance(module, nn.MultiheadAttention):
        yield _of_torch(name, module), True
        return
    for makers, taker, known in _layers(modules, name, order):
        others = [own for own in layers_below(modules, name) if own.name not in {taker.name, *(m.name for m in makers)}]
        likely = known and makers[0].name.rpartition(".")[2] in UNIT_MAJOR
        possible = _numbers(modules[name], makers, taker, known)
        for numbers in possible if order else reversed(possible):
            more = [own for own in others if own.outs in (numbers.heads, numbers.heads * numbers.size)]
            for free, wide, major, besides in product(
                (False, True), (False, True), (likely, not likely), (more, ()) if more else ((),)
            ):
                part = _part(modules, name, numbers, (*makers, *besides), taker, len(makers), major=major, wide=wide)
                if part is not None:
                    yield _freed(part, name, numbers) if free else part, known


def _freed(part: PlacedPart, name: str, numbers: Heads) -> PlacedPart:
    """The part of a module whose code takes the width of all heads from that of its input."""
    return replace(part, freed=(name,), counts=(*part.counts, Count(name, WIDTH, numbers.queries * numbers.size)))


def _layers(
    modules: Mapping[str, nn.Module], name: str, order: Mapping[str, int]
) -> Iterator[tuple[tuple[MixingLayer, ...], MixingLayer, bool]]:
    """(layers that make queries, keys and values; layer that mixes the heads; whether their names say so)."""
    for place in (*(joined(name, inside) for inside in ("self", "attention", "attn")), name):
        for names in (*SEPARATE, *((own,) for own in FUSED)):
            makers = [layer_at(modules, joined(place, own)) for own in names]
            takers = (layer_at(modules, joined(name, own)) for own in MIXERS)
            found = [own for own in takers if own is not None and own not in makers]
            if all(own is not None for own in makers):
                for taker in found:
                    yield tuple(own for own in makers if own is not None), taker, True
                    break
    if _attribute(modules[name], HEADS) is None:
        return
    layers = sorted(layers_below(modules, name), key=lambda own: order.get(own.name, 0))
    if order and len(layers) <= MOST:
        yield from ((tuple(layers[:place]), layers[place], False) for place in range(len(layers) - 1, 0, -1))


def _numbers(module: nn.Module, makers: Sequence[MixingLayer], taker: MixingLayer, known: bool) -> list[Heads]:
    """How many heads there may be and of which size, from attributes and the layers' sizes; first without groups."""
    own = [module, *(part for part in module.modules() if sizes_of(part) is None)]
    sizes = [size for part in own if (size := _attribute(part, SIZES)) and not taker.ins % size]
    counts = [count for part in own if (count := _attribute(part, HEADS)) and not taker.ins % count]
    sizes += [taker.ins // count for count in counts]
    if not sizes:
        return []
    size, outs = sizes[0], [layer.outs for layer in makers]
    heads = taker.ins // size
    groups = [heads]
    if known and len(makers) == 3 and outs[0] == taker.ins and outs[1] == outs[2] != taker.ins:
        groups = [outs[1] // size]
    elif known and len(makers) == 2 and outs[0] == taker.ins and outs[1] != 2 * taker.ins:
        groups = [outs[1] // (2 * size)]
    elif len(makers) == 1 and taker.ins < outs[0] < 3 * taker.ins and (outs[0] - taker.ins) % (2 * size) == 0:
        groups.append((outs[0] - taker.ins) // (2 * size))
    if counts and counts[0] != heads:
        return []
    found = [Heads(heads, size, own) for own in groups if own and heads % own == 0]
    return [own for own in found if own.units > 1]


def _part(
    modules: Mapping[str, nn.Module],
    name: str,
    numbers: Heads,
    makers: Sequence[MixingLayer],
    taker: MixingLayer,
    known: int,
    *,
    major: bool,
    wide: bool,
) -> PlacedPart | None:
    places: list[Place] = []
    for place, layer in enumerate(makers):
        if layer.outs == numbers.heads and place >= known:
            rows = layer.rows(inner=numbers.queries)
        else:
            rows = numbers.rows(layer, major, value=known == 3 and place == 2)
        if rows is None:
            return None
        places += rows
    beside = list(_beside(modules, name, numbers))
    if any(own.role == "makes" for own in beside):  # biases of their own, which may speak where the weights are zero
        places = [replace(own, role="makes") if own.role == "value" else own for own in places]
    columns = taker.columns(numbers.queries * numbers.size)
    return PlacedPart(
        "head",
        taker.name,
        numbers.units,
        (*places, *beside, columns),
        tuple(_counts(modules, name, numbers, wide)),
        owner=name,
        layers=tuple(layer.name for layer in makers[:known]),
    )


def _beside(modules: Mapping[str, nn.Module], name: str, numbers: Heads) -> Iterator[Place]:
    """Tables and biases with an entry a head, of the module itself and of what is no layer in it."""
    heads, total = numbers.heads, numbers.heads * numbers.size
    for path, module in modules[name].named_modules():
        if sizes_of(module) is not None or ("norm" in type(module).__name__.lower() and path):
            continue
        buffers = {own: t for own, t in module.named_buffers(recurse=False) if "bias" in own or "slope" in own}
        for own, tensor in {**dict(module.named_parameters(recurse=False)), **buffers}.items():
            full = joined(joined(name, path), own)
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or not tensor.ndim:
                continue
            by_head = [dim for dim, size in enumerate(tensor.shape) if size == heads]
            by_value = [dim for dim, size in enumerate(tensor.shape) if size == total]
            if by_head:
                last = "table" in own or isinstance(module, nn.Embedding)
                yield Place(full, by_head[-1 if last else 0], numbers.queries, role="beside")
            elif by_value:
                role = "makes" if isinstance(tensor, nn.Parameter) and tensor.ndim == 1 else "beside"
                yield Place(full, by_value[-1], numbers.queries * numbers.size, role=role)


def _counts(modules: Mapping[str, nn.Module], name: str, numbers: Heads, wide: bool) -> Iterator[Count]:
    """The attributes that say how many heads there are, and fields of the network's configuration."""
    units = numbers.units
    totals = (*TOTALS, *WIDTHS) if wide else TOTALS
    for path, module in modules[name].named_modules():
        full = joined(name, path)
        if sizes_of(module) is not None or full not in modules:
            continue
        for names, value in ((HEADS, numbers.heads), (GROUPS, numbers.groups)):
            yield from (Count(full, own, value // units) for own in names if _holds(module, own, value) and value > 1)
        if numbers.groups == 1 < numbers.heads:
            yield from (Count(full, own, 1) for own in QUERIES if _holds(module, own, numbers.heads))
        for own in totals:
            value = vars(module).get(own)
            fits = type(value) is int and value >= units and value % units == 0
            if fits and (own in TOTALS or value == numbers.heads * numbers.size):
                yield Count(full, own, value // units)
    yield from _fields(modules, name, numbers)


def _fields(modules: Mapping[str, nn.Module], name: str, numbers: Heads) -> Iterator[Count]:
    for holder, config in configs_of(modules, name):
        yield from _fields_in(config, holder, name, numbers)


def _fields_in(config: Any, holder: str, name: str, numbers: Heads) -> Iterator[Count]:
    sided = [own for own in SIDES if hasattr(config, own)]
    side = SIDES["decoder" in name.split(".")]
    fields = [own for own in ((sided and [side]) or FIELDS) if getattr(config, own, None) == numbers.heads]
    yield from (Count(holder, f"config.{own}", numbers.queries) for own in fields[:1])
    if numbers.groups > 1 or numbers.heads == 1:
        groups = [own for own in GROUPS if getattr(config, own, None) == numbers.groups]
        yield from (Count(holder, f"config.{own}", 1) for own in groups)
    if fields and not hasattr(config, "d_kv"):
        yield Count(holder, "config.head_dim", 0, numbers.size)


def configs_of(modules: Mapping[str, nn.Module], name: str) -> Iterator[tuple[str, Any]]:
    """The configurations of a module and those around it, as transformers have them, and which module holds each."""
    seen: set[int] = set()
    while True:
        config: Any = getattr(modules.get(name), "config", None)
        if hasattr(config, "to_dict") and id(config) not in seen:
            seen.add(id(config))
            yield name, config
        if not name:
            return
        name = name.rpartition(".")[0]


def _of_torch(name: str, module: nn.MultiheadAttention) -> PlacedPart:
    """The heads of torch's attention, whose code allows no other number."""
    size, heads = module.head_dim, module.num_heads
    places = []
    if module.in_proj_weight is not None:
        places += [Place(joined(name, "in_proj_weight"), 0, size, 2), _last_third(name, "in_proj_weight", module)]
    else:
        roles = {"q_proj_weight": "makes", "k_proj_weight": "makes", "v_proj_weight": "value"}
        places += [Place(joined(name, own), 0, size, role=role) for own, role in roles.items()]
    if module.in_proj_bias is not None:
        places += [Place(joined(name, "in_proj_bias"), 0, size, 2), _last_third(name, "in_proj_bias", module)]
    if module.bias_k is not None:
        places = [replace(own, role="makes") for own in places]
        places += [Place(joined(name, own), 2, size) for own in ("bias_k", "bias_v")]
    places.append(Place(joined(name, "out_proj.weight"), 1, size, role="takes"))
    counts, taker = (Count(name, "num_heads", 1),), joined(name, "out_proj")
    return PlacedPart("head", taker, heads, tuple(places), counts, (name,), name, (name,))


def _last_third(name: str, tensor: str, module: nn.MultiheadAttention) -> Place:
    return Place(joined(name, tensor), 0, module.head_dim, start=2 * module.num_heads * module.head_dim, role="value")


def _attribute(module: nn.Module, names: Sequence[str]) -> int | None:
    """The first of these attributes that is a positive number."""
    values = (vars(module).get(own) for own in names)
    return next((value for value in values if type(value) is int and value > 0), None)


def _holds(module: nn.Module, attribute: str, value: int) -> bool:
    own = vars(module).get(attribute)
    return type(own) is int and own == value
