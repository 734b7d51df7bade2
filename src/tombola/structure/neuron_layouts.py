"""Where hidden neurons may lie: the names that networks use, as data, and what follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from torch import Tensor, nn

from tombola.structure.head_counts import configs_of
from tombola.structure.layers import BATCH_NORMS, is_depthwise
from tombola.structure.mixing_layers import MOST, MixingLayer, layer_at, layers_below, sizes_of
from tombola.structure.placed_parts import Count, Place, PlacedPart
from tombola.tickets import joined

HIDDEN = (
    (("intermediate.dense",), "output.dense"),
    (("gate_proj", "up_proj"), "down_proj"),
    (("gate_up_proj",), "down_proj"),
    (("up_proj",), "down_proj"),
    (("lin1",), "lin2"),
    (("linear1",), "linear2"),
    (("fc1_g", "fc1_x"), "fc2"),
    (("fc1",), "fc2"),
    (("wi_0", "wi_1"), "wo"),
    (("wi",), "wo"),
    (("Wi",), "Wo"),
    (("c_fc",), "c_proj"),
    (("fc_in",), "fc_out"),
    (("dense_h_to_4h",), "dense_4h_to_h"),
    (("intermediate_dense",), "output_dense"),
    (("ffn",), "ffn_output"),
    (("w1", "w3"), "w2"),
    (("w1", "w2"), "w3"),
    (("w12",), "w3"),
    (("weights_in",), "weights_out"),
    (("dense1",), "dense2"),
    (("pwconv1",), "pwconv2"),
    (("ln1",), "ln2"),
)
"""Names of the layers of feed-forward parts: those that make the hidden neurons, a gate first; the one behind."""

EXPERTS = (
    (("gate_up_proj",), "down_proj"),
    (("gate_proj", "up_proj"), "down_proj"),
    (("w1", "w3"), "w2"),
    (("wi_0", "wi_1"), "wo"),
    (("up_proj",), "down_proj"),
    (("wi",), "wo"),
)
"""The same for experts, whose weights are stacked in parameters of three dimensions."""

WIDTHS = (
    *("intermediate_size", "intermediate_dim", "hidden_features", "hidden_dim", "ffn_dim", "d_ff", "expert_dim"),
    *("inner_dim", "ffn_hidden_size", "moe_intermediate_size", "dim_feedforward", "ff_dim", "mlp_dim"),
)
FIELDS = ("intermediate_size", "d_ff", "ffn_dim", "n_inner", "hidden_dim")
SIDES = ("encoder_ffn_dim", "decoder_ffn_dim")


def neuron_candidates(
    modules: Mapping[str, nn.Module], name: str, order: Mapping[str, int]
) -> Iterator[tuple[PlacedPart, bool]]:
    """What the hidden neurons of a module may be; arguments and results as of `head_candidates`."""
    yield from ((part, True) for part in _experts(modules, name))
    for makers, taker, known in _layers(modules, name, order):
        size, packed = taker.ins, makers[0].outs == 2 * taker.ins
        if size < 2:
            continue
        for side_by_side in (False, True) if packed else (False,):
            wide = {"inner": 2 if side_by_side else 1, "outer": 1 if side_by_side else 2} if packed else {"inner": 1}
            last = len(makers) - 1
            roles = ["value" if place == last and not packed else "makes" for place in range(len(makers))]
            rows = [own for maker, role in zip(makers, roles, strict=True) for own in maker.rows(**wide, role=role)]  # ty: ignore[invalid-argument-type]
            between = list(_between(modules, name, size))
            if between:  # what lies between may speak where its inputs are zero
                rows = [replace(own, role="makes") for own in rows]
            counts = tuple(_counts(modules, name, size))
            layers = tuple(maker.name for maker in makers)
            places = (*rows, *between, taker.columns(1))
            yield PlacedPart("neuron", taker.name, size, places, counts, owner=name, layers=layers), known


def _layers(
    modules: Mapping[str, nn.Module], name: str, order: Mapping[str, int]
) -> Iterator[tuple[tuple[MixingLayer, ...], MixingLayer, bool]]:
    for names, behind in HIDDEN:
        taker = layer_at(modules, joined(name, behind))
        makers = [layer_at(modules, joined(name, own)) for own in names]
        if taker is not None and all(_fits(maker, taker, len(names)) for maker in makers):
            yield tuple(maker for maker in makers if maker is not None), taker, True
    every = list(layers_below(modules, name)) if order else []
    if len(every) > MOST:
        return
    layers = [own for own in every if isinstance(own.module, nn.Linear)]
    layers = sorted((own for own in layers if own.name in order), key=lambda own: order[own.name])
    for place, taker in enumerate(layers):
        makers = [maker for maker in layers[:place] if maker.outs == taker.ins]
        gates = [maker for maker in makers if maker.ins == makers[-1].ins]
        yield from ((own, taker, False) for own in dict.fromkeys((tuple(gates[-2:]), tuple(gates[-1:]))) if own)
        if place and layers[place - 1].outs == 2 * taker.ins:
            yield (layers[place - 1],), taker, False


def _fits(maker: MixingLayer | None, taker: MixingLayer, makers: int) -> bool:
    return maker is not None and (maker.outs == taker.ins or (makers == 1 and maker.outs == 2 * taker.ins))


def _between(modules: Mapping[str, nn.Module], name: str, size: int) -> Iterator[Place]:
    """Depthwise convolutions, batch norms and scales of the hidden neurons."""
    for path, module in modules[name].named_modules():
        depthwise = is_depthwise(module) and module.out_channels == size
        if depthwise or (isinstance(module, BATCH_NORMS) and module.num_features == size):
            full = joined(name, path)
            tensors = ("weight", "bias", "running_mean", "running_var")
            held = (own for own in tensors if isinstance(getattr(module, own, None), Tensor))
            yield from (Place(joined(full, own), 0) for own in held)
    for own, tensor in modules[name].named_parameters(recurse=False):
        if tensor.ndim == 1 and len(tensor) == size and sizes_of(modules[name]) is None:
            yield Place(joined(name, own), 0)


def _experts(modules: Mapping[str, nn.Module], name: str) -> Iterator[PlacedPart]:
    """The neurons of stacked experts: a unit is the neuron of the same number in each of them."""
    own = {own: p for own, p in modules[name].named_parameters(recurse=False) if p.ndim == 3}
    for names, behind in EXPERTS:
        if behind not in own or not all(maker in own for maker in names):
            continue
        model = {own[behind].shape[1], own[behind].shape[2]}
        for take, packed in product((2, 1), ("halves", "pairs") if len(names) == 1 else ("",)):
            size = own[behind].shape[take]
            width = size * (2 if packed else 1)
            makes = 3 - take  # a stack is (experts, outputs, inputs), or both transposed
            fits = all(own[maker].shape[makes] in (width, size) and own[maker].shape[take] in model for maker in names)
            if not fits or size < 2:
                continue
            doubled = own[names[0]].shape[makes] == 2 * size
            inner, outer = (2, 1) if doubled and packed == "pairs" else (1, 2 if doubled else 1)
            places = [Place(joined(name, maker), makes, inner, outer) for maker in names]
            biases = [f"{maker}_bias" for maker in names]
            for bias, tensor in modules[name].named_parameters(recurse=False):
                if bias in biases and tensor.ndim == 2:
                    places.append(Place(joined(name, bias), 1, inner, outer))
            places.append(Place(joined(name, behind), take, role="takes"))
            counts = tuple(_counts(modules, name, size))
            layers = tuple(joined(name, maker) for maker in names)
            yield PlacedPart("neuron", joined(name, behind), size, tuple(places), counts, owner=name, layers=layers)


def _counts(modules: Mapping[str, nn.Module], name: str, size: int) -> Iterator[Count]:
    for path, module in modules[name].named_modules():
        full = joined(name, path)
        if full in modules and sizes_of(module) is None:
            yield from (Count(full, own, 1) for own in WIDTHS if vars(module).get(own) == size)
    yield from _fields(modules, name, size)


def _fields(modules: Mapping[str, nn.Module], name: str, size: int) -> Iterator[Count]:
    for holder, config in configs_of(modules, name):
        sided = any(hasattr(config, own) for own in SIDES)
        fields: Sequence[str] = (SIDES["decoder" in name.split(".")],) if sided else FIELDS
        values = {field: getattr(config, field, 0) for field in fields}
        fits = [own for own, value in values.items() if value == size or (own == "n_inner" and value is None)]
        yield from (Count(holder, f"config.{field}", 1) for field in fits[:1])
