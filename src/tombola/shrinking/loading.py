"""Loads a smaller network from its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.shrinking.cutting import cut
from tombola.shrinking.network_description import PRETRAINED, Description, check_fits_units
from tombola.shrinking.origin import Origin, transformers_class
from tombola.shrinking.small_folder import CONFIG, origin_in, read_small
from tombola.structure import replace_module
from tombola.tickets import copied, modules_of, put_values, tensors_of


def load_small(folder: str | Path, model: nn.Module | Callable[[], nn.Module] | None = None) -> nn.Module:
    """Load a smaller network from a folder.

    Args:
        folder: where `save_small`, or `tombola shrink --out`, wrote it.
        model: a class of yours, or a function, that gives a whole network of the class and size that was shrunk; or
            such a network, whose weights do not matter and which is not changed. Not needed for networks of
            transformers, timm, torchvision and the zoo.

    Returns:
        The smaller network, in evaluation mode.

    Raises:
        TombolaError: a file is missing or altered, the model is of another class or size, or is needed and not given.

    Examples:
        >>> from tombola.shrinking import save_small
        >>> import tempfile, torch
        >>> from tombola.shrinking import preview, shrink
        >>> from tombola.tickets import Mask
        >>> model, example = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(1, 4)
        >>> rows = torch.tensor([True, False, True])
        >>> mask = Mask.of({"0.weight": rows[:, None].expand(3, 4), "0.bias": rows})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     saved = save_small(folder, shrink(model, mask, example=example), preview(model, mask, example))
        ...     print(saved.opener, load_small(folder, model)[0])
        class Linear(in_features=4, out_features=2, bias=True)
    """
    folder, model = Path(folder), _network(model)
    said, tensors = read_small(folder)
    origin = origin_in(folder, said)
    if said.file == PRETRAINED:
        assert origin is not None
        return around(model, said, _named(_filled(origin, tensors, folder), folder)).eval()
    if model is None and origin is None:
        raise TombolaError(
            f"the network in {folder} is of a class of somebody's own, which a file does not name; give it: "
            "tb.load_small(folder, Net)"
        )
    if model is None:
        assert origin is not None
        _check_memory(origin)
        return _named(cut_anew(origin.build().eval(), said, tensors, folder), folder)
    inner = modules_of(model).get(said.inside, model) if said.inside else model
    return around(model, said, cut_anew(inner, said, tensors, folder)).eval()


def _network(model: nn.Module | Callable[[], nn.Module] | None) -> nn.Module | None:
    """The whole network that is given, or that what is given makes."""
    if model is None or isinstance(model, nn.Module):
        return model
    made = model() if callable(model) else model
    if not isinstance(made, nn.Module):
        raise TombolaError(f"model gave a {type(made).__name__}; give a network, or a class that makes one when called")
    return made.eval()


def around(model: nn.Module | None, said: Description, network: nn.Module) -> nn.Module:
    """The network in the place of the one that a given model holds; the network itself if none is given."""
    if model is None:
        return network
    held = modules_of(model).get(said.inside, model)
    if type(held) is not type(network):
        raise TombolaError(
            f"the folder holds a {type(network).__name__}, and a {type(held).__name__} was given; give a model of the "
            "class that was shrunk, or none"
        )
    if held is model:
        return network
    outer = copied(model)
    replace_module(outer, modules_of(outer)[said.inside], network)
    return outer


def _named(network: Any, folder: Path) -> nn.Module:
    """The network with the name by which one of transformers says where it, and so its tokenizer, came from."""
    if hasattr(network, "name_or_path"):
        network.name_or_path = str(folder)
    return network


def _check_memory(origin: Origin) -> None:
    """Build a network without values first, so that one larger than the memory is refused in time."""
    try:
        origin.build("meta")
    except TombolaError as error:
        if "larger than this machine" in str(error):
            raise


def cut_anew(model: nn.Module, said: Description, tensors: Mapping[str, Tensor], folder: Path) -> nn.Module:
    """The smaller network, cut out of a whole one again."""
    check_fits_units(said.cuts.parts, tensors_of(model), folder)
    cuts = said.cuts
    try:
        small = cut(model, cuts.kept, cuts.idle, cuts.parts, cuts.passes, cuts.silent)
    except TombolaError:
        raise
    except (LookupError, AttributeError, RuntimeError, TypeError, ValueError, ArithmeticError, MemoryError) as error:
        raise TombolaError(
            f"{folder} was cut out of another network ({error}); give a model of the class and size that was shrunk"
        ) from error
    put_values(small, tensors)
    return small


def _filled(origin: Origin, tensors: Mapping[str, Tensor], folder: Path) -> nn.Module:
    """A network of transformers with the weights of a file, by transformers' own names; none of them is drawn anew."""
    _check_memory(origin)
    kind, config = transformers_class(origin)
    try:
        network, told = kind.from_pretrained(None, config=config, state_dict=dict(tensors), output_loading_info=True)
    except Exception as error:  # it refuses in many ways
        raise TombolaError(f"transformers cannot open {folder} ({error}); shrink the ticket again") from error
    odd = [str(name) for names in told.values() for name in names]
    if odd:
        raise TombolaError(f"'{odd[0]}' in {folder} is not as {CONFIG} says; shrink the ticket again")
    return network.eval()
