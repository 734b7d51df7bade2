"""Tensors from what people have: arrays, data frames and lists of numbers, in any nest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.nested import mapped

NUMBER = (int, float, complex, np.generic)


def as_tensors(values: Any, *, double: bool | Callable[[], bool] = False, labels: bool = False) -> Any:
    """Make tensors of the arrays and the lists of numbers in a nest.

    Args:
        values: tensors, arrays, data frames and lists of numbers in any nest that `nested.mapped` knows; other objects
            stay as they are.
        double: keep float64, or a function that says whether, called where there is any; it becomes float32 otherwise.
        labels: make int64 of whole numbers, as losses want them; tensors of uint8 stay, which losses take too.

    Returns:
        The same structure.

    Raises:
        TombolaError: for arrays of texts, dates and objects.

    Examples:
        >>> as_tensors({"image": np.zeros((1, 2)), "name": "a"})
        {'image': tensor([[0., 0.]]), 'name': 'a'}
    """
    return mapped(values, lambda value: _tensor_of(value, double, labels), is_array)


def is_array(value: Any) -> bool:
    """Whether a tensor can be made of a value: a tensor, an array or the like, or a list of numbers."""
    return isinstance(value, Tensor) or hasattr(value, "__array__") or is_numbers(value)


def is_numbers(value: Any) -> bool:
    """Whether a value is a list or tuple of numbers, or of such lists.

    Examples:
        >>> is_numbers([[0.5, 1.0], [2.0, 3.0]]), is_numbers(["a"]), is_numbers(1.0)
        (True, False, False)
    """
    first = value
    while isinstance(first, list | tuple) and len(first):
        first = first[0]
    return first is not value and isinstance(first, NUMBER)


def _tensor_of(value: Any, double: bool | Callable[[], bool], labels: bool) -> Tensor:
    given = isinstance(value, Tensor)
    # What comes from a graph, as features of another network: each backward pass would go through it again.
    tensor = _from_array(value) if not given else value if value.is_leaf else value.detach()
    tensor = tensor.clone() if tensor.is_inference() else tensor  # of which no graph can be made
    if tensor.dtype == torch.float64 and not (double() if callable(double) else double):
        return tensor.float()
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype in (torch.bool, torch.int64))
    return tensor.long() if labels and whole and not (given and tensor.dtype == torch.uint8) else tensor


def _from_array(value: Any) -> Tensor:
    try:
        array = np.asarray(value)
    except ValueError as error:  # numpy's word for lists of lists of different lengths
        raise TombolaError("lists of numbers differ in length; give lists of one length, or pad them") from error
    if array.dtype.kind not in "biufc":
        raise TombolaError(f"an array holds {array.dtype}, of which there is no tensor; give numbers")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:  # torch computes little with them
        array = array.astype(np.int64)
    # torch takes arrays that can be written to, are contiguous, and have this machine's order of bytes.
    usable = array.flags.writeable and array.flags.c_contiguous and array.dtype.isnative
    return torch.as_tensor(array if usable else np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
