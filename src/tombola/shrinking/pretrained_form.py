"""Brings a smaller network of transformers into a form that its configuration can say: `from_pretrained` opens it.

A configuration has one number for all layers. Layers that kept fewer units than another get theirs back as zeros, which
change nothing. Blocks that were cut out leave the numbering of the layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.shrinking.cutting import cut
from tombola.shrinking.plan import Plan, part_outside
from tombola.structure import PlacedPart, Removed, axes_of_parts, found_parts, meta_twin, own_random_state
from tombola.tickets import buffers_of, modules_of, parameters_of

MOST_PADDING = 0.1
"""How many more parameters zeros may add, as a share of the smaller network's."""

DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers")
DECODER_DEPTHS = ("decoder_layers", "num_decoder_layers")
"""The fields that say how many layers there are; the second ones speak for a decoder where they are there."""


@dataclass(frozen=True, eq=False)
class PretrainedForm:
    """A network that its own configuration describes.

    Args:
        network: it, with its weights.
        plan: what to cut out of the whole network to get it, its layers numbered as in the whole one.
        names: the name in the whole network's numbering of each of its tensors.
        zeros: how many of its parameters are zeros that were put back.
    """

    network: nn.Module
    plan: Plan
    names: Mapping[str, str]
    zeros: int


def whole_config(small: Any, plan: Plan) -> Any:
    """The configuration of the network that a smaller one was cut out of.

    Args:
        small: the smaller network, whose configuration may have been mended.
        plan: what was cut out.
    """
    twin: Any = meta_twin(small)
    modules = modules_of(twin)
    for part, _ in plan.parts:
        for count in part.counts:
            place, _, field = count.attribute.rpartition(".")
            config = getattr(modules.get(count.module), place, None) if place else None
            if config is not None:
                setattr(config, field, count.base + count.factor * part.size)
    return twin.config


def built(kind: type[nn.Module], config: Any, device: str = "meta") -> nn.Module:
    """A network of transformers with a configuration, as new; without values on the meta device."""
    with own_random_state(torch.device("cpu")), torch.device(device):
        return kind(config)


def pretrained_form(small: Any, plan: Plan) -> PretrainedForm:
    """The form of a smaller network that its configuration can say.

    Args:
        small: a network of a class of transformers.
        plan: what was cut out of the whole one.

    Raises:
        TombolaError: there is none, or it would be a tenth larger; the text says why and is no whole sentence.
    """
    whole = built(type(small), whole_config(small, plan))
    parts, gone = _parts(whole, plan), _gone(whole, plan)
    removed = {part: _units(part, gone) for part in parts}
    name = type(small.config).__name__
    why = f"no field of its {name} says what was cut"
    for counts in _counts(removed, modules_of(whole)):
        padded_parts = [(part, _without(units, part.size - counts[part])) for part, units in removed.items()]
        found = _expressed(small, whole, plan, padded_parts)
        if found is None:
            continue
        padded, network, names = found
        size, less = (sum(p.numel() for p in own.parameters()) for own in (network, small))
        if size > (1 + MOST_PADDING) * less:
            more = f"as its {name} can say it, all layers alike, it would have {size / less - 1:.0%} more parameters"
            why = why if all(not units for part, units in padded_parts if removed[part]) else more
            continue
        state = _state(small, whole, plan, padded_parts, names)
        real = built(type(small), padded.config, "cpu").to(next(small.parameters()).dtype)
        real.load_state_dict(state, strict=True)
        own = replace(plan, kept={}, silent=(), parts=tuple(padded_parts))
        return PretrainedForm(real.eval(), own, names, size - less)
    raise TombolaError(why)


def _parts(whole: nn.Module, plan: Plan) -> tuple[PlacedPart, ...]:
    """The parts of a network: those of the plan, and otherwise those whose names are known."""

    def no_probe(_: nn.Module) -> Any:
        raise TombolaError("names alone decide")

    parts = tuple(part for part, _ in plan.parts) or found_parts(whole, no_probe).parts
    return tuple(own for own in (part_outside(part, plan.idle) for part in parts) if own.places)


def _gone(whole: nn.Module, plan: Plan) -> dict[tuple[str, int], set[int]]:
    """The positions that were cut out, by tensor and dimension; of a tied tensor, under each of its names."""
    tensors = parameters_of(whole) | buffers_of(whole)
    gone = {
        (name, dim): set(range(tensors[name].shape[dim])) - set(positions.tolist())
        for name, axes in plan.axes(whole).items()
        if name in tensors
        for dim, positions in axes.items()
    }
    for part, units in plan.parts:
        for key, positions in part.removed(units).items():
            gone.setdefault(key, set()).update(positions)
    for name, tensor in parameters_of(whole, remove_duplicate=False).items():
        tied = next((own for own, other in tensors.items() if other is tensor), name)
        gone |= {(name, dim): gone[tied, dim] for dim in range(tensor.ndim) if (tied, dim) in gone}
    return gone


def _units(part: PlacedPart, gone: Mapping[tuple[str, int], set[int]]) -> tuple[int, ...]:
    """The units of a part all of whose positions are gone."""
    return tuple(
        unit
        for unit in range(part.size)
        if all(gone.get((p.tensor, p.dim), set()).issuperset(p.positions(unit, part.size)) for p in part.places)
    )


def _counts(
    removed: Mapping[PlacedPart, tuple[int, ...]], modules: Mapping[str, Any]
) -> Iterator[dict[PlacedPart, int]]:
    """How many units each part may keep: as many for all of which one field speaks, the fewest first."""
    groups: list[tuple[set[tuple[int, str]], list[PlacedPart]]] = []
    for part in removed:
        counts = [count for count in part.counts if count.attribute.startswith("config.") and count.factor]
        fields, parts = {(id(modules[count.module].config), count.attribute) for count in counts}, [part]
        # An encoder and a decoder may each have a copy of the configuration beside the one that is saved.
        for others in [group for group in groups if group[0] & fields]:
            groups.remove(others)
            fields, parts = fields | others[0], [*others[1], *parts]
        groups.append((fields, parts))
    most = [max(part.size - len(removed[part]) for part in parts) for _, parts in groups]
    heads = [parts[0].size - own for (_, parts), own in zip(groups, most, strict=True) if parts[0].kind == "head"]
    for more in range(max(heads, default=0) + 1):  # some configurations want a divisor of the model's size
        yield {
            part: min(part.size, own + (more if part.kind == "head" else 0)) if fields else part.size
            for (fields, parts), own in zip(groups, most, strict=True)
            for part in parts
        }


def _without(units: tuple[int, ...], most: int) -> tuple[int, ...]:
    """So many of the units that went; the others come back as zeros."""
    return units[len(units) - most :] if most else ()


def _expressed(
    small: Any, whole: nn.Module, plan: Plan, parts: Removed
) -> tuple[Any, nn.Module, dict[str, str]] | None:
    """The padded network without values, the same from its configuration, and its names; None if they differ."""
    try:
        padded: Any = cut(whole, {}, plan.idle, parts, plan.passes)
        numbers = _renumbered(padded, plan)
        network = built(type(small), padded.config)
    except Exception:  # configurations and classes refuse numbers in many ways
        return None
    theirs = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    own = {_new_name(name, numbers): (name, tuple(tensor.shape)) for name, tensor in padded.state_dict().items()}
    if theirs != {name: shape for name, (_, shape) in own.items()}:
        return None
    return padded, network, {name: old for name, (old, _) in own.items()}


def _renumbered(padded: Any, plan: Plan) -> dict[str, dict[str, str]]:
    """Set the numbers of layers in a configuration; the new number of each layer, by stack and old number."""
    found: dict[str, dict[str, str]] = {}
    modules = modules_of(padded)
    for stack in dict.fromkeys(name.rpartition(".")[0] for name in plan.idle):
        places = [name.rpartition(".")[2] for name in modules if name.rpartition(".")[0] == stack and name != stack]
        left = [place for place in places if f"{stack}.{place}" not in plan.idle]
        found[stack] = {place: str(number) for number, place in enumerate(left)}
        fields = vars(padded.config)
        sided = [own for own in DECODER_DEPTHS if own in fields] if "decoder" in stack.split(".") else []
        for field in [own for own in sided or DEPTHS if fields.get(own) == len(places)][:1]:
            setattr(padded.config, field, len(left))
        for field, value in list(fields.items()):
            if isinstance(value, list) and len(value) == len(places):  # what each layer is
                setattr(padded.config, field, [value[places.index(place)] for place in left])
    return found


def _new_name(name: str, numbers: Mapping[str, Mapping[str, str]]) -> str:
    for stack, new in numbers.items():
        found = re.fullmatch(rf"({re.escape(stack)}\.)(\d+)(\..*)", name)
        if found is not None and found[2] in new:
            return f"{found[1]}{new[found[2]]}{found[3]}"
    return name


@torch.no_grad()
def _state(
    small: nn.Module, whole: nn.Module, plan: Plan, parts: Removed, names: Mapping[str, str]
) -> dict[str, Tensor]:
    """The weights of the smaller network in the padded one's shapes, with zeros where units came back."""
    tensors = parameters_of(whole, remove_duplicate=False) | buffers_of(whole)
    gone, wide = _gone(whole, plan), axes_of_parts(parts, tensors)
    values, state = small.state_dict(), dict[str, Tensor]()
    for name, old in names.items():
        axes = wide.get(old, {})
        shape = [len(axes[dim]) if dim in axes else size for dim, size in enumerate(tensors[old].shape)]
        value = values[old].to("cpu") if old in values else None
        if value is None or list(value.shape) == shape:
            state[name] = torch.zeros(shape) if value is None else value
            continue
        for dim, size in enumerate(shape):
            places = axes.get(dim, torch.arange(size))
            lost = gone.get((old, dim), set())
            kept = torch.tensor([at for at, number in enumerate(places.tolist()) if number not in lost])
            if len(kept) < size:
                wider = value.new_zeros(*value.shape[:dim], size, *value.shape[dim + 1 :])
                value = wider.index_copy(dim, kept, value)
        state[name] = value
    return state
