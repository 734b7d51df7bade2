"""Where attention heads may lie: from the names, attributes and sizes of layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from torch import Tensor, nn

from tombola.structure.free_attention import WIDTH
from tombola.structure.head_counts import head_counts
from tombola.structure.head_names import FUSED, HEADS, MIXERS, SEPARATE, UNIT_MAJOR
from tombola.structure.head_numbers import Heads, attribute, head_numbers
from tombola.structure.mixing_layers import MOST, MixingLayer, layer_at, layers_below, sizes_of
from tombola.structure.placed_parts import Count, Place, PlacedPart
from tombola.tickets import joined


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
        possible = head_numbers(modules[name], makers, taker, known)
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
        if place not in modules:
            continue
        for names in (*SEPARATE, *((own,) for own in FUSED)):
            if any(joined(place, own) not in modules for own in names):
                continue
            makers = [layer_at(modules, joined(place, own)) for own in names]
            if any(own is None for own in makers):
                continue
            takers = (layer_at(modules, joined(name, own)) for own in MIXERS)
            for taker in (own for own in takers if own is not None and own not in makers):
                yield tuple(own for own in makers if own is not None), taker, True
                break
    if attribute(modules[name], HEADS) is None:
        return
    layers = sorted(layers_below(modules, name), key=lambda own: order.get(own.name, 0))
    if order and len(layers) <= MOST:
        yield from ((tuple(layers[:place]), layers[place], False) for place in range(len(layers) - 1, 0, -1))


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
        tuple(head_counts(modules, name, numbers, wide)),
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
