"""A model's tensors by name: reading, writing and fingerprinting them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.tickets.mask import Mask
from tombola.tickets.tensor_names import named_tensors


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers of a model by their plain names; live, not copied."""
    return {name: tensor.detach() for name, tensor in named_tensors(model).items()}


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters are; the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@torch.no_grad()
def put_values(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy values into a model's own tensors, which must be the same ones; no tensor is shared afterwards."""
    own = tensors_of(model)
    for name in [*values, *own]:
        if name not in own or name not in values or own[name].shape != values[name].shape:
            here = tuple(own[name].shape) if name in own else "missing"
            there = tuple(values[name].shape) if name in values else "missing"
            raise TombolaError(
                f"the stored values belong to another architecture: '{name}' is {here} in this model and {there} "
                "in the ticket; use the model that the ticket was found on"
            )
    for name, tensor in own.items():
        tensor.copy_(values[name])


def check_fits(mask: Mask, parameters: Mapping[str, Tensor]) -> None:
    """Raise TombolaError where the mask names a parameter that is not there, or of another shape.

    parameters: by their plain names, as `parameters_of` gives them.
    """
    for name, shape in mask.shapes.items():
        here = tuple(parameters[name].shape) if name in parameters else "missing"
        if here != shape:
            raise TombolaError(
                f"this mask belongs to another architecture: '{name}' is {here} in this model and {shape} in the "
                "mask; use the model that the ticket was found on"
            )


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """A fingerprint of named tensors: names, types, shapes and bytes."""
    content = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        content.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return content.hexdigest()
