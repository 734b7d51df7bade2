"""Names of a network's modules and tensors that are the same whatever torch has wrapped around them.

A wrapper is known by its type, at every depth; a network's own child may be called `module` as well. A plain name is
what the network itself calls a module or tensor; its path is what `get_parameter` and `functional_call` take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.tickets.torch_private import children_of, own_buffers, own_parameters
from tombola.tickets.wrappers import Wrapper, loaded, wrapper_of

Store = Callable[[nn.Module], Mapping[str, Tensor | None]]


class NamePlace(NamedTuple):
    """Where a module stands in a network; wrapper: what it is, if it is no part of the network itself."""

    module: nn.Module
    name: str
    path: str
    wrapper: Wrapper | None


def places_of(model: nn.Module, *, remove_duplicate: bool = True) -> Iterator[NamePlace]:
    """Every module in torch's order, wrappers too, which have the name of what they wrap."""
    known, seen = loaded(), set()
    ahead = [(model, "", "")]
    while ahead:
        module, name, path = ahead.pop()
        if remove_duplicate and module in seen:
            continue
        seen.add(module)
        wrapper = wrapper_of(module, known)
        yield NamePlace(module, name, path, wrapper)
        for own, child in reversed(children_of(module).items()):
            if child is not None:
                inside = wrapper is not None and own == wrapper.child
                ahead.append((child, name if inside else joined(name, own), joined(path, own)))


def names_of(model: nn.Module) -> dict[nn.Module, str]:
    """By module its plain name, for wrappers too."""
    return {place.module: place.name for place in places_of(model)}


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """A network's modules by their plain names, itself as the empty one; wrappers are none of them."""
    return {place.name: place.module for place in places_of(model) if place.wrapper is None}


def parameters_of(model: nn.Module, *, remove_duplicate: bool = True) -> dict[str, nn.Parameter]:
    """A network's parameters by their plain names, in its order; one of several names under its first, or all."""
    found = _found(model, own_parameters, remove_duplicate=remove_duplicate)
    return {name: own for name, (_, own) in found.items()}  # ty: ignore[invalid-explicit-return]


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """A network's buffers by their plain names, in its order."""
    return {name: own for name, (_, own) in _found(model, own_buffers).items()}


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A network's parameters, and then its buffers, by their plain names."""
    return {name: own for name, (_, own) in _found(model, own_parameters, own_buffers).items()}


def paths_of(model: nn.Module) -> dict[str, str]:
    """By the plain name of a parameter or buffer its path in the model as it is wrapped."""
    return {name: path for name, (path, _) in _found(model, own_parameters, own_buffers).items()}


def joined(name: str, part: str) -> str:
    """The name of a part of the module of this name."""
    return f"{name}.{part}" if name else part


def _found(model: nn.Module, *stores: Store, remove_duplicate: bool = True) -> dict[str, tuple[str, Tensor]]:
    """Paths and tensors by plain names. TombolaError if two come to one name, as in a wrapper with parts of its own."""
    found: dict[str, tuple[str, Tensor]] = {}
    seen: set[Tensor] = set()
    places = list(places_of(model, remove_duplicate=remove_duplicate))
    for store in stores:
        for module, name, path, wrapper in places:
            # What the outermost wrappers count is not the network's; what those inside do, its checkpoints need.
            left_out = wrapper.tensors if wrapper and not name else ()
            for own, tensor in store(module).items():
                if tensor is None or own in left_out or (remove_duplicate and tensor in seen):
                    continue
                seen.add(tensor)
                full = joined(name, own)
                other = found.setdefault(full, (joined(path, own), tensor))
                if other[1] is not tensor:
                    raise TombolaError(
                        f"'{other[0]}' and '{joined(path, own)}' of this model would both be called '{full}' without "
                        "what is wrapped around them; rename one, or keep parts of your own out of the wrapper"
                    )
    return found
