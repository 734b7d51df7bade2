"""Masks that others keep: the state of torch.nn.utils.prune, tensors of zeros and ones, a checkpoint's zeros."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from tombola.errors import TombolaError
from tombola.tickets.mask import Mask
from tombola.tickets.sharding import check_whole
from tombola.tickets.tensor_names import buffers_of, modules_of, parameters_of
from tombola.tickets.tensors import check_fits

LARGEST = 2**30
"""Numbers of a mask that is expanded from fewer."""
ORIGINAL, MASK = "_orig", "_mask"
"""What torch.nn.utils.prune appends to a parameter's name, for its values and for its mask."""


class ZerosWarning(UserWarning):
    """How many weights a checkpoint's zeros remove, where a mask was read from them."""


def mask_of_pruned(model: nn.Module) -> Mask:
    """The mask of a network that torch.nn.utils.prune has pruned, under the names of the plain network.

    Args:
        model: the network, however wrapped; it stays as it is.

    Raises:
        TombolaError: if nothing of it is pruned so.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 1))
        >>> _ = prune.custom_from_mask(model[0], "weight", torch.tensor([[1.0, 0.0]]))
        >>> mask_of_pruned(model)["0.weight"].tolist()
        [[True, False]]
    """
    masks = _pruned({**parameters_of(model), **buffers_of(model)})
    if not masks:
        raise TombolaError(
            "nothing of this network is pruned by torch.nn.utils.prune, which keeps 'weight_orig' and 'weight_mask'; "
            "after its remove() only zeros are left: mask_of_zeros() reads those"
        )
    return Mask.of({name: _checked(name + MASK, mask) for name, mask in masks.items()})


def mask_of_tensors(tensors: Mapping[str, Any], model: nn.Module) -> Mask:
    """The mask that tensors of zeros and ones say, for a network.

    A name is a parameter's, with or without `_mask` after it, and with or without what a wrapper puts before it
    (`module.`). Of the state_dict of a network that torch.nn.utils.prune has pruned, only the masks are read.

    Args:
        tensors: by name, tensors or arrays of any type of number.
        model: the plain network that the mask is for.

    Raises:
        TombolaError: naming a tensor that holds anything but 0 and 1, or that is no parameter's or not of its shape.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 1))
        >>> mask_of_tensors({"module.0.weight_mask": torch.tensor([[1, 0]])}, model)["0.weight"].tolist()
        [[True, False]]
    """
    if not isinstance(tensors, Mapping) or not tensors:
        raise TombolaError("there are no masks; give a dictionary of tensors by the names of parameters")
    if not all(isinstance(key, str) for key in tensors):
        raise TombolaError("the masks have keys that are no texts; give a dictionary of tensors by names of parameters")
    parameters, given = parameters_of(model, remove_duplicate=False), _pruned(tensors) or tensors
    names = _parameters_called(list(given), parameters)
    if twice := [key for key, name in names.items() if list(names.values()).count(name) > 1]:
        raise TombolaError(f"'{twice[0]}' and '{twice[1]}' are masks of one parameter; give one for each")
    mask = Mask.of({name: _checked(key, given[key]) for key, name in names.items()})
    check_fits(mask, parameters)
    return mask


def mask_of_zeros(source: nn.Module | Mapping[str, Tensor], names: Collection[str] | None = None) -> Mask:
    """The mask that removes what is exactly zero now; a ZerosWarning says how many weights of each tensor those are.

    A weight may also be zero by chance, and a removed one may have moved: read zeros only where nothing else says what
    was removed.

    Args:
        source: a network, or a checkpoint's tensors by name.
        names: the tensors to read; None reads each of two or more dimensions.

    Raises:
        TombolaError: if none of the tensors has a zero, or one is missing.

    Examples:
        >>> with warnings.catch_warnings(record=True) as said:
        ...     warnings.simplefilter("always")
        ...     mask = mask_of_zeros({"0.weight": torch.tensor([[0.5, 0.0]])})
        >>> print(mask, said[0].message, sep="; ")
        Mask(1 of 2 kept in 1 tensors, density 0.5); read as removed: 1 of 2 weights of '0.weight', which are exactly 0
    """
    tensors = parameters_of(source) if isinstance(source, nn.Module) else source
    names = [name for name, tensor in tensors.items() if _is_weight(tensor)] if names is None else names
    if missing := [name for name in names if name not in tensors]:
        raise TombolaError(f"there is no tensor '{missing[0]}' to read zeros from; give names of {', '.join(tensors)}")
    mask = Mask.of({name: tensors[name] for name in names})
    zeros = {name: bits.size - bits.kept for name, bits in mask.bits.items() if bits.size > bits.kept}
    if not zeros:
        raise TombolaError("none of the tensors holds an exact 0, so that their zeros say nothing of what was removed")
    counted = ", ".join(f"{count:,} of {mask.bits[name].size:,} weights of '{name}'" for name, count in zeros.items())
    warnings.warn(f"read as removed: {counted}, which are exactly 0", ZerosWarning, stacklevel=2)
    return mask


def prune_by(mask: Mask, model: nn.Module) -> None:
    """Prune a network by torch.nn.utils.prune as a mask says, for other tools that read its state.

    Args:
        mask: the mask.
        model: the network that the mask was made for; each masked parameter becomes `…_orig` and `…_mask`, in place.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 1, bias=False))
        >>> prune_by(Mask.of({"0.weight": torch.tensor([[True, False]])}), model)
        >>> list(model.state_dict())
        ['0.weight_orig', '0.weight_mask']
    """
    check_whole(model, "torch.nn.utils.prune")
    parameters, modules = parameters_of(model, remove_duplicate=False), modules_of(model)
    check_fits(mask, parameters)
    for name in mask:
        module, _, parameter = name.rpartition(".")
        prune.custom_from_mask(modules[module], parameter, mask[name].to(parameters[name].device))


def _pruned(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The masks of a pruned network's tensors, by the name of what they mask."""
    plain = (name.removesuffix(ORIGINAL) for name in tensors if name.endswith(ORIGINAL))
    return {name: tensors[name + MASK] for name in plain if name + MASK in tensors}


def _parameters_called(keys: list[str], parameters: Collection[str]) -> dict[str, str]:
    """The parameter that each name of a mask means, without what a wrapper puts before all of them."""

    def plain(name: str) -> str:
        return name if name in parameters else name.removesuffix(MASK)

    parts = keys[0].split(".")
    for count in range(len(parts)):
        prefix = "".join(f"{part}." for part in parts[:count])
        names = {key: plain(key[len(prefix) :]) for key in keys if key.startswith(prefix)}
        if len(names) == len(keys) and all(name in parameters for name in names.values()):
            return names
    unknown = next(key for key in [*keys[1:], keys[0]] if plain(key) not in parameters)
    raise TombolaError(
        f"'{unknown}' is no parameter of this model; name each mask as its parameter, as '{next(iter(parameters), '')}'"
    )


def _checked(key: str, values: Any) -> Tensor:
    """A mask's values as truths; TombolaError for anything but 0 and 1."""
    try:
        mask = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TombolaError(
            f"'{key}' holds a {type(values).__name__}; a mask is a tensor or an array of 0 and 1"
        ) from error
    is_strided = mask.layout == torch.strided and not mask.is_meta
    if mask.is_meta or (is_strided and mask.numel() > max(mask.untyped_storage().nbytes(), LARGEST)):
        raise TombolaError(f"'{key}' has the shape {tuple(mask.shape)} and no values of its own; give a whole mask")
    mask = mask.to_dense() if mask.layout != torch.strided else mask
    kept = mask != 0
    if bool((kept & (mask != 1)).any()):
        strange = mask[kept & (mask != 1)][0].item()
        raise TombolaError(
            f"'{key}' holds {strange:g}, and a mask only 0 and 1; mask_of_zeros() reads weights themselves"
        )
    return kept


def _is_weight(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.ndim >= 2 and tensor.is_floating_point()
