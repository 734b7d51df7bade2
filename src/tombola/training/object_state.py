"""The state of objects that decides what they do."""

from __future__ import annotations

import argparse
import datetime
import decimal
import fractions
import operator
import random
import re
import sys
import types
from collections import UserDict, UserList, deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tombola.fields import is_unsaid
from tombola.tickets import digest_of

SAYING = (
    *(bytes, bytearray, complex, range, slice, re.Pattern, PurePath, decimal.Decimal, fractions.Fraction),
    *(datetime.date, datetime.time, datetime.timedelta, torch.device, torch.dtype, torch.finfo, torch.iinfo),
    *(operator.itemgetter, operator.attrgetter, operator.methodcaller),
)
"""Objects whose repr says all about them."""
SEQUENCES = (tuple, list, deque, UserList)
ARRAYS = (Tensor, np.ndarray)
RANDOM = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
"""Known by their class alone: use moves their state, and then whatever ran before would change a run's identity."""
HOLDING = (types.SimpleNamespace, argparse.Namespace, UserDict, Enum)
"""The standard library's objects whose attributes are settings; others hold locks, files and the like."""


def state_of(value: Any) -> dict[str, Any]:
    """The settings of an object by name: a partial's parts, a dataclass's fields, else its attributes and slots."""
    if isinstance(value, torch.Generator):
        return {"seed": value.initial_seed()}
    if isinstance(value, RANDOM):
        return {}
    if isinstance(value, partial):
        return {"of": value.func, "arguments": value.args, "settings": value.keywords}
    if is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in fields(value) if hasattr(value, field.name)}
        unsaid = {field.name for field in fields(value) if is_unsaid(field, held.get(field.name, ...))}
        return {name: part for name, part in held.items() if name not in unsaid}
    kind = type(value)
    if kind.__module__ != "__main__" and kind.__module__.partition(".")[0] in sys.stdlib_module_names:
        return dict(vars(value)) if isinstance(value, HOLDING) else {}
    slots = [name for base in kind.__mro__ for name in _slots(base)]
    return {name: getattr(value, name) for name in slots if hasattr(value, name)} | _attributes(value)


def array_digest(value: Tensor | np.ndarray) -> str:
    """A fingerprint of a tensor or array, of any layout and type."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufc":  # texts, dates and objects, which torch cannot hold
            text = without_addresses(repr((value.dtype.str, value.tolist())))
            content = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
            return digest_of({"": content})
        # torch takes arrays that can be written to, are contiguous, and have this machine's order of bytes.
        usable = value.flags.writeable and value.flags.c_contiguous and value.dtype.isnative
        value = torch.as_tensor(value if usable else np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    return digest_of({"": value if value.layout == torch.strided else value.to_dense()})


def without_addresses(text: str) -> str:
    """A repr without the addresses of objects in memory, which differ from process to process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _attributes(value: Any) -> dict[str, Any]:
    attributes = getattr(value, "__dict__", {})
    # A class may have an attribute `__dict__` of its own that is no mapping.
    return {str(name): part for name, part in attributes.items()} if isinstance(attributes, Mapping) else {}
