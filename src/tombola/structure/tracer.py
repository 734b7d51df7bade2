"""Calls a network and follows its channels through every operation. The door to torch's dispatch modes.

Private are `torch.utils._python_dispatch`, where torch has its dispatch modes, and the identity of a storage
(`_cdata`), which also tensors without values have. They are the same in torch 2.6 to 2.13.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tombola.doors import Door
from tombola.nested import leaves_of
from tombola.structure.links import Links
from tombola.structure.marks import Marks, deepened
from tombola.structure.meta_device import result_of
from tombola.structure.operation_calls import Call, tensors_among
from tombola.structure.operations import rule_for

DOOR = Door("torch", ">=2.6,<2.14", "structure/tracer.py")
ZEROS = {"zeros", "new_zeros", "zeros_like", "zero"}
COPIES = {"_to_copy", "clone", "repeat", "cat", "stack", "index", "index_select"}
"""Operations that give zeros; the latter of zeros only."""

DispatchMode: Any = DOOR.part(torch.utils, "_python_dispatch.TorchDispatchMode")


@dataclass(eq=False)
class _State:
    links: Links
    marks: dict[int, Marks]
    seen: dict[int, Tensor] = field(default_factory=dict)  # all tensors are held, so that none takes another's id
    owners: dict[int, int] = field(default_factory=dict)  # the first tensor of a storage
    zeros: set[int] = field(default_factory=set)  # storages of nothing but zeros

    def of(self, tensor: Any) -> Marks | None:
        return self.marks.get(id(tensor))


class Tracer(DispatchMode):
    """Inside, every operation on marked tensors gives marked tensors, or pins the channels that it takes.

    Args:
        links: where it is noted which channels meet.
        marks: the marks of the network's parameters and buffers.
    """

    def __init__(self, links: Links, marks: Mapping[int, Marks]) -> None:
        super().__init__()
        self.links = links
        self._state = _State(links, dict(marks))
        self._functions = _Functions(self)
        self.paused = False

    def __enter__(self) -> Tracer:
        self._functions.__enter__()
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._functions.__exit__(*exception)

    def of(self, tensor: Tensor) -> Marks | None:
        """A tensor's marks; None if it comes from no channels."""
        return self._state.of(tensor)

    def is_zero(self, tensor: Tensor) -> bool:
        """Whether the network has made a tensor of zeros and written nothing into it."""
        return _storage(tensor) in self._state.zeros

    def mark(self, tensor: Tensor, marks: Marks) -> None:
        """Say where a tensor comes from that was made while this was paused."""
        self._state.marks[id(tensor)] = marks
        self._state.seen[id(tensor)] = tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = result_of(func, args, kwargs)
        if self.paused:
            return result
        state = self._state
        results = tensors_among(result)
        before = {id(tensor): state.of(tensor) for tensor in results}
        given = tensors_among((args, tuple(kwargs.values())))
        name = func.name().partition("::")[2].partition(".")[0]
        name = name.rstrip("_") if name.endswith("_") and not name.startswith("__") else name
        self._note_zeros(name, given, results)
        if any(id(tensor) in state.marks for tensor in given):
            name = "chunk" if self._functions.chunking and name in ("split", "split_with_sizes") else name
            call = Call(name, func, args, kwargs, results, state.of, state.links)
            for tensor, marks in zip(results, rule_for(func, name)(call), strict=False):
                in_place = id(tensor) in (id(own) for own in given)
                if in_place and not _same(marks, before[id(tensor)]) and self._is_view(tensor):
                    state.links.pin(marks, name)  # the tensor of which this is a part changes too, unseen
                    state.links.pin(before[id(tensor)], name)
                    marks = None
                if marks is None:
                    state.marks.pop(id(tensor), None)
                else:
                    state.marks[id(tensor)] = marks
        for tensor in (*given, *results):
            state.seen[id(tensor)] = tensor
            state.owners.setdefault(_storage(tensor), id(tensor))
        return result

    def _note_zeros(self, name: str, given: list[Tensor], results: list[Tensor]) -> None:
        zeros = self._state.zeros
        if name in ZEROS or (zeros and name in COPIES and all(_storage(own) in zeros for own in given)):
            zeros.update(map(_storage, results))
        elif zeros:  # what it writes into is zero no longer
            zeros.difference_update(_storage(own) for own in results if any(own is other for other in given))

    def _is_view(self, tensor: Tensor) -> bool:
        """Whether others see what is written into a tensor."""
        owner = self._state.seen.get(self._state.owners.get(_storage(tensor), id(tensor)), tensor)
        return owner is not tensor


SHAPED = (
    Tensor.view,
    Tensor.reshape,
    torch.reshape,
    Tensor.expand,
    torch.broadcast_to,
    Tensor.broadcast_to,
    Tensor.unflatten,
    torch.unflatten,
)
"""Functions that give a tensor the shape that they are called with."""


class _Functions(TorchFunctionMode):
    """Inside, what reaches the tracer as something else, or not at all.

    A tensor that is cut into a number of parts is there cut into parts of a size, and sequences that are padded again
    are written into a tensor step by step. And it is noted where a network's code gives sizes.
    """

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.chunking = False
        self._tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "_pad_packed_sequence":
            return self._padded(func, *args)
        self.chunking = func in (torch.chunk, Tensor.chunk)
        try:
            result = func(*args, **(kwargs or {}))
        finally:
            self.chunking = False
        if func in SHAPED and (marks := self._tracer.of(result)) is not None:
            given = set(leaves_of((args[1:], kwargs or {})))
            if any(result.shape[axis] in given for axis in marks.axes):
                channels = np.concatenate([places.ravel() for places in marks.places])
                self._tracer.links.sized.append(channels[channels > 0])
        return result

    def _padded(self, func: Any, data: Tensor, sizes: Tensor, batch_first: bool, value: float, length: int) -> Any:
        """Sequences side by side, each with the same value at its end."""
        self._tracer.paused = True
        padded, lengths = func(data, sizes, batch_first, value, length)
        self._tracer.paused = False
        marks = self._tracer.of(data)
        if marks is not None:
            marks = marks.plain().moved(lambda places: deepened(places, padded.ndim))
            self._tracer.mark(padded, replace(marks, lit=marks.lit or bool(value)))
        return padded, lengths


class Multiplied(DispatchMode):
    """Inside, it is noted with which weights linear layers and convolutions multiply (`weights`)."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        place = {"aten::convolution": 1, "aten::mm": 1, "aten::addmm": 2}.get(func.name().partition(".")[0])
        if place is not None:
            self.weights.append(args[place])
        return func(*args, **(kwargs or {}))


def _storage(tensor: Tensor) -> int:
    return DOOR.part(tensor.untyped_storage(), "_cdata")


def _same(one: Marks | None, other: Marks | None) -> bool:
    if one is None or other is None:
        return one is other
    return len(one.places) == len(other.places) and all(
        a.shape == b.shape and (a == b).all() for a, b in zip(one.places, other.places, strict=True)
    )
