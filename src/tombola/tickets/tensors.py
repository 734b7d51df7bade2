"""A model's tensors by name: reading, writing and fingerprinting them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.tickets.mask import Mask
from tombola.tickets.sharding import own_part, part_like, whole
from tombola.tickets.tensor_names import check_network, joined, named_tensors, parameters_of, places_of
from tombola.tickets.torch_private import NormWithStatistics, own_buffers, transient_buffers


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers of a model by their plain names: detached, but not copied or gathered."""
    return {name: tensor.detach() for name, tensor in named_tensors(model).items()}


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's first parameter; the CPU if it has none."""
    check_network(model)
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@torch.no_grad()
def put_values(model: nn.Module, values: Mapping[str, Tensor], *, of_ticket: bool = False) -> None:
    """Copy values into a model's parameters and buffers.

    A buffer may follow the batch, as the state that a recurrent network keeps. So one of another shape is replaced, one
    that is None is set, and one without a value becomes None. This does not hold for the statistics of norms.

    Args:
        model: the model, changed in place.
        values: one for each parameter and buffer, by its plain name and of its shape.
        of_ticket: whether they are a ticket's, which may be of an earlier version of the network: a buffer that
            checkpoints contain then needs a value.

    Raises:
        TombolaError: if names or shapes differ.
    """
    states = check_values(model, values, of_ticket=of_ticket)
    for name, tensor in tensors_of(model).items():
        if name not in states:
            own_part(tensor).copy_(part_like(whole(values[name]), tensor))
    for name, (module, key) in states.items():
        own_buffers(module)[key] = values[name].to(device_of(model), copy=True) if name in values else None


def check_values(
    model: nn.Module, values: Mapping[str, Tensor], *, of_ticket: bool = False
) -> dict[str, tuple[nn.Module, str]]:
    """Check that values belong to a model.

    Args:
        model: the model.
        values: as of `put_values`.
        of_ticket: as of `put_values`.

    Returns:
        Where the buffers are that cannot take their values in place, by plain name.

    Raises:
        TombolaError: if names, shapes or kinds of numbers differ.
    """
    states, tensors = _states_to_replace(model, values, of_ticket), tensors_of(model)
    for name in [*values, *tensors]:
        if name in states:
            continue
        if name not in tensors or name not in values or tensors[name].shape != values[name].shape:
            here = tuple(tensors[name].shape) if name in tensors else "missing"
            there = tuple(values[name].shape) if name in values else "missing"
            raise TombolaError(
                f"the stored values belong to another architecture: '{name}' is {here} in this model and {there} "
                "in the ticket; use the model that the ticket was found on"
            )
    for name, tensor in tensors.items():
        if name not in states and tensor.is_floating_point() != values[name].is_floating_point():
            raise TombolaError(
                f"the stored values of '{name}' are {values[name].dtype}, and this model's are {tensor.dtype}; use the "
                "model that the ticket was found on"
            )
    return states


def _states_to_replace(
    model: nn.Module, values: Mapping[str, Tensor], of_ticket: bool
) -> dict[str, tuple[nn.Module, str]]:
    """Where the buffers are that cannot take their values in place, by plain name; without the statistics of norms."""
    states = {}
    for module, name, _, _ in places_of(model):
        for key, buffer in () if isinstance(module, NormWithStatistics) else own_buffers(module).items():
            value = values.get(joined(name, key))
            missing = value is None and buffer is not None
            if missing and of_ticket and key not in transient_buffers(module):
                continue
            if missing or (value is not None and (buffer is None or buffer.shape != value.shape)):
                states[joined(name, key)] = module, key
    return states


def check_fits(mask: Mask, parameters: Mapping[str, Tensor]) -> None:
    """Check that a mask belongs to a network.

    Args:
        mask: the mask.
        parameters: the network's, by their plain names, as `parameters_of` gives them.

    Raises:
        TombolaError: if the mask names a parameter that is missing or has another shape.
    """
    for name, shape in mask.shapes.items():
        here = tuple(parameters[name].shape) if name in parameters else "missing"
        if here != shape:
            raise TombolaError(
                f"this mask belongs to another architecture: '{name}' is {here} in this model and {shape} in the "
                "mask; use the model that the ticket was found on"
            )


@torch.no_grad()
def zero_dead(model: nn.Module, mask: Mask) -> None:
    """Set the weights that a mask removes to zero, in place, on whatever device they lie.

    Raises:
        TombolaError: the mask is another network's.
    """
    parameters = parameters_of(model) if mask else {}
    check_fits(mask, parameters)
    for name, kept in mask.items():
        parameters[name].masked_fill_(~kept.to(parameters[name].device), 0)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """A fingerprint of named tensors: of their names, types, shapes and bytes, in the order of the names."""
    content = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        content.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        # As bytes, since NumPy lacks some types, such as bfloat16.
        content.update(whole(tensor).cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return content.hexdigest()
