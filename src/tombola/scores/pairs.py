"""A batch as a pair: which part of it are the inputs, and which the targets."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch.utils.data import Dataset

from tombola.errors import TombolaError

Target = str | int | tuple[str, ...] | None
"""Which part of a batch is the target: a key or field, a place in a tuple, or several keys."""
USUAL = ("labels", "label", "targets", "target", "y")
"""Keys that are taken for the target if a batch has one of them."""
PAIRS = "let the data give pairs (inputs, targets)"
FIX = "say which part is the target, as SupervisedTask(target={}), or " + PAIRS


def paired(batch: Any, target: Target = None) -> tuple[Any, Any]:
    """Split a batch, or a sample, into inputs and targets.

    Args:
        batch: a pair (inputs, targets); or a mapping, named tuple, dataclass or longer tuple with the target in it.
        target: a key or field, or a place in a tuple; several keys give a dict of targets. By default the second of
            two, or the one key of "labels", "label", "targets", "target", "y".

    Returns:
        Inputs and targets. Of a mapping the inputs are a mapping of what is left. Of all others they are what is left:
        the one part itself, or a tuple of several.

    Raises:
        TombolaError: saying what came, if the target is not found in it or nothing is left.

    Examples:
        >>> paired({"input_ids": 1, "attention_mask": 2, "labels": 3})
        ({'input_ids': 1, 'attention_mask': 2}, 3)
        >>> paired(("image", "caption", "class"), target=-1)
        (('image', 'caption'), 'class')
    """
    if target is None and type(batch) in (tuple, list) and len(batch) == 2:
        return batch[0], batch[1]
    named = _named(batch)
    if named is not None and not isinstance(target, int):
        chosen = _usual(named, batch) if target is None else target
        if chosen is not None:
            return _by_name(batch, named, chosen)
    if isinstance(batch, Mapping) or not (isinstance(batch, tuple | list) or named is not None):
        fix = FIX.format("…") if isinstance(batch, Mapping) else PAIRS
        raise TombolaError(f"a batch is {_described(batch)}; {fix}")
    parts = list(named.values()) if named is not None else list(batch)
    if target is None and len(parts) == 2:
        return parts[0], parts[1]
    if not isinstance(target, int) or len(parts) < 2 or not -len(parts) <= target < len(parts):
        raise TombolaError(f"a batch is {_described(batch)}; {FIX.format('-1') if len(parts) > 1 else PAIRS}")
    chosen_part = parts.pop(target)
    return _rest(parts), chosen_part


def is_dataset(source: Any) -> bool:
    """Whether something gives samples: a torch data set, or one of Hugging Face."""
    return isinstance(source, Dataset) or (hasattr(source, "column_names") and hasattr(source, "__iter__"))


def _by_name(batch: Any, named: Mapping[str, Any], target: str | tuple[str, ...]) -> tuple[Any, Any]:
    names = (target,) if isinstance(target, str) else target
    missing = [name for name in names if name not in named]
    rest = {name: value for name, value in named.items() if name not in names}
    if missing or not rest:
        why = f"without '{missing[0]}'" if missing else "and nothing of it is left for the inputs"
        raise TombolaError(f"a batch is {_described(batch)} {why}; {FIX.format('…')}")
    targets = named[target] if isinstance(target, str) else {name: named[name] for name in names}
    if not isinstance(batch, Mapping):
        return _rest(list(rest.values())), targets
    if type(batch) is dict or not isinstance(batch, MutableMapping):
        return rest, targets
    inputs = copy.copy(batch)  # of its own type, as a tokeniser's
    try:
        for name in names:
            del inputs[name]
    except (KeyError, TypeError, AttributeError):  # some cannot lose a key
        return rest, targets
    return inputs, targets


def _named(batch: Any) -> Mapping[str, Any] | None:
    """The parts of a batch by name; None for what has no names."""
    if isinstance(batch, Mapping):
        return batch
    if isinstance(batch, tuple) and hasattr(batch, "_fields") and type(batch).__module__ != "torch.nn.utils.rnn":
        return dict(zip(batch._fields, batch, strict=True))
    if is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in fields(batch)}
    return None


def _usual(named: Mapping[str, Any], batch: Any) -> str | None:
    """The target's name, if just one part has a usual one."""
    usual = [name for name in USUAL if name in named]
    if len(usual) > 1:
        raise TombolaError(f"a batch is {_described(batch)}; {FIX.format(repr(usual[0]))}")
    return usual[0] if usual else None


def _rest(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else tuple(parts)


def _described(batch: Any) -> str:
    """What a batch is, in a few words."""
    kind = type(batch).__name__
    named = _named(batch)
    if named is not None:
        return f"a {kind} of {', '.join(map(str, named))}"
    if isinstance(batch, tuple | list):
        return f"a {kind} of {len(batch)}"
    shape = getattr(batch, "shape", None)
    return f"one {kind}" + (f" of shape {tuple(shape)}" if shape is not None else "")
