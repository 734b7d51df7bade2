"""What says how many heads there are: attributes of modules, and fields of a network's configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from tombola.structure.head_names import FIELDS, GROUPS, HEADS, QUERIES, SIDES, TOTALS, WIDTHS
from tombola.structure.head_numbers import Heads
from tombola.structure.mixing_layers import sizes_of
from tombola.structure.placed_parts import Count
from tombola.tickets import joined


def head_counts(modules: Mapping[str, nn.Module], name: str, numbers: Heads, wide: bool) -> Iterator[Count]:
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


def _holds(module: nn.Module, attribute: str, value: int) -> bool:
    own = vars(module).get(attribute)
    return type(own) is int and own == value
