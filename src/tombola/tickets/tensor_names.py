"""Names of a network's modules and tensors, the same whatever torch has wrapped around them.

A plain name is what the network itself calls a module or tensor; its path is what `get_parameter` and
`functional_call` take, wrappers included. A wrapper is known by its type, at every depth, and not by its name, since a
network may call a child of its own `module`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tombola.errors import TombolaError
from tombola.tickets.sharding import reshard
from tombola.tickets.torch_private import children_of, own_buffers, own_parameters
from tombola.tickets.wrappers import Wrapper, loaded, wrapper_of

Store = Callable[[nn.Module], Mapping[str, Tensor | None]]


class NamePlace(NamedTuple):
    """Where a module stands in a network.

    Args:
        module: the module.
        name: its plain name; a wrapper has the name of what it wraps.
        path: its path in the model as it is wrapped.
        wrapper: which wrapper the module is; None for a part of the network itself.
    """

    module: nn.Module
    name: str
    path: str
    wrapper: Wrapper | None


def check_network(model: nn.Module) -> None:
    """TombolaError if a class stands in the place of a network."""
    if isinstance(model, type):
        raise TombolaError(f"give a network, not the class {model.__name__}; call it: {model.__name__}()")


def places_of(model: nn.Module, *, remove_duplicate: bool = True) -> Iterator[NamePlace]:
    """Every module of a model, wrappers too, in the order of `model.named_modules()`.

    Args:
        model: the network, however wrapped.
        remove_duplicate: whether a module that stands in several places is given once.
    """
    check_network(model)
    wrappers, visited = loaded(), set()
    to_visit = [(model, "", "")]
    while to_visit:
        module, name, path = to_visit.pop()
        if remove_duplicate and module in visited:
            continue
        visited.add(module)
        wrapper = wrapper_of(module, wrappers)
        yield NamePlace(module, name, path, wrapper)
        for child_name, child in reversed(children_of(module).items()):  # the last one pushed is visited first
            if child is not None and not (wrapper is not None and child_name == wrapper.twin):
                inside = wrapper is not None and child_name == wrapper.child
                child_path = joined(path, child_name)
                plain = name if inside else child_path if name == path else joined(name, child_name)
                to_visit.append((child, plain, child_path))


def names_of(model: nn.Module) -> dict[nn.Module, str]:
    """The plain name of each module, of wrappers too."""
    return {place.module: place.name for place in places_of(model)}


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """A network's modules by their plain names, without wrappers; the network itself has the empty name."""
    return {place.name: place.module for place in places_of(model) if place.wrapper is None}


def parameters_of(model: nn.Module, *, remove_duplicate: bool = True) -> dict[str, nn.Parameter]:
    """A network's parameters by their plain names, in its order.

    Args:
        model: the network, however wrapped.
        remove_duplicate: whether a tied parameter is listed under its first name only, and not under each.

    Raises:
        TombolaError: if two parameters would have the same plain name.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 1))
        >>> list(parameters_of(nn.DataParallel(model)))
        ['0.weight', '0.bias']
    """
    tensors = _tensors_by_name(model, own_parameters, remove_duplicate=remove_duplicate)
    return {name: parameter for name, (_, parameter) in tensors.items()}  # ty: ignore[invalid-explicit-return]


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """A network's buffers by their plain names, in its order."""
    return {name: buffer for name, (_, buffer) in _tensors_by_name(model, own_buffers).items()}


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A network's parameters, and then its buffers, by their plain names."""
    return {name: tensor for name, (_, tensor) in _tensors_by_name(model, own_parameters, own_buffers).items()}


def paths_of(model: nn.Module) -> dict[str, str]:
    """The path of each parameter and buffer in the model as it is wrapped, by its plain name."""
    return {name: path for name, (path, _) in _tensors_by_name(model, own_parameters, own_buffers).items()}


def joined(name: str, part: str) -> str:
    """The full name of a part of a module: `layer1` and `weight` give `layer1.weight`; either may be empty."""
    return f"{name}.{part}" if name and part else name or part


def _tensors_by_name(model: nn.Module, *stores: Store, remove_duplicate: bool = True) -> dict[str, tuple[str, Tensor]]:
    """Path and tensor by plain name; TombolaError if two tensors share one, as in a wrapper with parts of its own."""
    by_name: dict[str, tuple[str, Tensor]] = {}
    listed: set[Tensor] = set()
    places = list(places_of(model, remove_duplicate=remove_duplicate))
    reshard(place.module for place in places)
    for store in stores:
        for module, name, path, wrapper in places:
            # Tensors of an outermost wrapper, such as AveragedModel's counter, are not the network's; those of a
            # wrapper inside the network are in its checkpoints.
            left_out = wrapper.tensors if wrapper and not name else ()
            for key, tensor in store(module).items():
                if tensor is None or key in left_out or (remove_duplicate and tensor in listed):
                    continue
                listed.add(tensor)
                if is_lazy(tensor):
                    raise TombolaError(
                        f"'{joined(name, key)}' has neither shape nor values yet, since its layer is lazy; call the "
                        "network on a batch first"
                    )
                plain, full_path = joined(name, key), joined(path, key)
                first_path, first = by_name.setdefault(plain, (full_path, tensor))
                if first is not tensor:
                    raise TombolaError(
                        f"'{first_path}' and '{full_path}' of this model would both be called '{plain}' without "
                        "what is wrapped around them; rename one, or keep parts of your own out of the wrapper"
                    )
    return by_name
