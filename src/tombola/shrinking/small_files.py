"""Saves a smaller network in a folder that the usual loader opens, where there is one, and loads it again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from tombola.errors import FileError, TombolaError
from tombola.files import content_of, json_of, write_atomically
from tombola.nested import tensors_in
from tombola.scores import Forward, Inputs, forward, suited
from tombola.shrinking.cutting import cut
from tombola.shrinking.cutting import replace as put_module
from tombola.shrinking.fresh_opening import TOLERANCE, call_of, check_opens, gap_between
from tombola.shrinking.network_description import (
    PRETRAINED,
    WEIGHTS,
    Description,
    check_fits_units,
    inside_of,
    nothing_cut,
    read_description,
    unreadable,
)
from tombola.shrinking.origin import Origin, origin_of, plain_config, transformers_class, transformers_network
from tombola.shrinking.plan import Plan
from tombola.shrinking.pretrained_form import PretrainedForm, pretrained_form, whole_config
from tombola.shrinking.rebuilding import rebuilds
from tombola.tickets import copied, digest_of, modules_of, put_values, tensors_of

NETWORK, CONFIG, GENERATION = "network.json", "config.json", "generation_config.json"
FILES = (NETWORK, WEIGHTS, PRETRAINED, CONFIG, GENERATION)
"""What a smaller network's folder may hold."""


@dataclass(frozen=True)
class Saved:
    """A smaller network's folder, and what opens it.

    Args:
        folder: where it is.
        opener: `transformers`, by `from_pretrained`; `name`, by `tb.load_small(folder)`, which builds the whole network
            from a library's own list; `class`, by `tb.load_small(folder, Net)` with your own class.
        network: the name of the network or its class in its library; empty for a class of your own.
        why: why transformers does not open a network of its own; empty where it does, or for other networks.
        zeros: how many parameters of zeros were put back, so that layers are alike.
    """

    folder: Path
    opener: Literal["transformers", "name", "class"]
    network: str = ""
    why: str = ""
    zeros: int = 0

    @property
    def weights(self) -> Path:
        """The file of the weights."""
        return self.folder / (PRETRAINED if self.opener == "transformers" else WEIGHTS)

    @property
    def code(self) -> str:
        """The line of Python that opens it."""
        if self.opener == "transformers":
            return f'transformers.{self.network}.from_pretrained("{self.folder}")'
        return f'tb.load_small("{self.folder}")' if self.opener == "name" else f'tb.load_small("{self.folder}", Net)'


def save_small(
    folder: str | Path,
    small: nn.Module,
    plan: Plan,
    facts: Mapping[str, Any] | None = None,
    *,
    origin: Origin | None = None,
    example: Inputs | None = None,
    forward: Forward = forward,
) -> Saved:
    """Write a smaller network into a folder.

    A network of transformers, alone or in a class of yours that adds no weights, is written as `save_pretrained` does
    where its configuration can say the shape. That is opened in a process of its own, and its outputs are compared,
    before anything is written. Else the folder holds `weights.safetensors`, and `network.json` with the units that were
    cut out and how the whole network is built: by name for networks of timm, torchvision and the zoo, by its own
    configuration for transformers.

    Args:
        folder: where to write them.
        small: the network that `shrink` returned.
        plan: what was cut, as `preview` returns it.
        facts: any further JSON to keep in `network.json`.
        origin: how the whole network is built, where it cannot be seen from the network.
        example: a batch on which the outputs are compared; without one, transformers' own `dummy_inputs` are taken.
        forward: calls the network on the example.

    Returns:
        What opens the folder.

    Raises:
        TombolaError: the origin builds another network.
    """
    folder, facts, outer = Path(folder), dict(facts or {}), small
    inside = transformers_network(small) if origin is None else None
    why, asked = "", origin is not None
    if inside is not None:
        network, cuts = modules_of(outer)[inside], inside_of(plan, inside)
        origin = _of_transformers(network, cuts)
        if origin is not None:
            small, plan = network, cuts
            try:
                form = _checked_form(outer, small, plan, example, forward)
            except TombolaError as error:
                why = str(error)
            else:
                _write_pretrained(folder, form, inside, facts)
                return Saved(folder, "transformers", type(small).__name__, zeros=form.zeros)
        else:
            inside, why = None, f"it is not as its {type(network.config).__name__} says"
    elif origin is None:
        origin = origin_of(small, lambda own: rebuilds(own, small, plan))
    elif not rebuilds(origin, small, plan):
        raise _other(origin)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors_of(small).items()}
    said = Description(plan, digest_of(tensors), origin=origin, inside=inside or "", facts=facts)
    if origin is not None and example is not None:
        again = _around(outer, said, _cut_anew(origin.build(), said, tensors, folder))
        if not _give_the_same(outer, again, example, forward):
            if asked:
                raise _other(origin)
            origin, said = None, replace(said, origin=None)
    # The description first: after a kill in between, it says that the folder is ours to write again.
    _write_description(folder, said)
    write_atomically(folder / WEIGHTS, save_safetensors(tensors))
    return Saved(folder, "class" if origin is None else "name", "" if origin is None else origin.name, why)


def _of_transformers(network: Any, cuts: Plan) -> Origin | None:
    """The origin of a network of transformers; None if it was changed by hand or a file may not say how."""
    try:
        origin = Origin("transformers", type(network).__name__, plain_config(whole_config(network, cuts)))
    except (TombolaError, TypeError, ValueError, AttributeError):
        return None
    return origin if rebuilds(origin, network, cuts) else None


def _other(origin: Origin) -> TombolaError:
    return TombolaError(
        f"{origin.library}'s '{origin.name}' with these arguments is another network than the one that was shrunk; "
        "name the one that it was"
    )


def check_place(folder: str | Path, *more: str) -> None:
    """Refuse a folder in which `save_small` would replace files that it did not write.

    Args:
        folder: where the network is to be written.
        more: names of further files that are written beside it.

    Raises:
        FileError: there are such files.
    """
    folder = Path(folder)
    present = [name for name in (*FILES, *more) if (folder / name).exists()]
    try:
        read_description(folder / NETWORK)
    except TombolaError as error:
        if present:
            raise FileError(
                f"{folder / present[0]} is not of a network that Tombola shrank; choose another --out, so that it stays"
            ) from error


def load_small(folder: str | Path, model: nn.Module | Callable[[], nn.Module] | None = None) -> nn.Module:
    """Load a smaller network from a folder.

    Args:
        folder: where `save_small`, or `tombola shrink --out`, wrote it.
        model: a class of yours, or a function, that gives a whole network of the class and size that was shrunk; or
            such a network, whose weights do not matter and which is not changed. Not needed for networks of
            transformers, timm, torchvision and the zoo.

    Returns:
        The smaller network.

    Raises:
        TombolaError: a file is missing or altered, the model is of another class or size, or is needed and not given.

    Examples:
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
    said, tensors = _read(folder)
    origin = _origin_in(folder, said)
    if said.file == PRETRAINED:
        assert origin is not None
        return _around(model, said, _filled(origin, tensors, folder))
    if model is None and origin is None:
        raise TombolaError(
            f"the network in {folder} is of a class of somebody's own, which a file does not name; give it: "
            "tb.load_small(folder, Net)"
        )
    if model is None:
        assert origin is not None
        _check_memory(origin)
        return _cut_anew(origin.build().eval(), said, tensors, folder)
    inner = modules_of(model).get(said.inside, model) if said.inside else model
    return _around(model, said, _cut_anew(inner, said, tensors, folder))


def check_files(folder: Path) -> Description:
    """Check what a folder of a smaller network holds, without building anything.

    Args:
        folder: what was received.

    Returns:
        What it says of itself.

    Raises:
        TombolaError: a file is missing, altered, or chooses what a file may not choose.
    """
    said, _ = _read(folder)
    _origin_in(folder, said)
    return said


def opener_of(said: Description, folder: str | Path) -> Saved:
    """What opens a folder.

    Args:
        said: what the folder says of itself.
        folder: its path, or its name on the Hub.
    """
    if said.file == PRETRAINED:
        return Saved(Path(folder), "transformers", "" if said.origin is None else said.origin.name)
    return Saved(Path(folder), "class" if said.origin is None else "name", said.origin.name if said.origin else "")


def add_facts(folder: str | Path, facts: Mapping[str, Any]) -> None:
    """Keep further facts in the `network.json` of a smaller network.

    Args:
        folder: the network's.
        facts: any JSON, by name.
    """
    said = read_description(Path(folder) / NETWORK)
    _write_description(Path(folder), replace(said, facts={**said.facts, **facts}))


def _read(folder: Path) -> tuple[Description, dict[str, Tensor]]:
    """What a folder says, and its tensors."""
    said = read_description(folder / NETWORK)
    try:
        tensors = load_safetensors(content_of(folder / said.file))
    except (OSError, ValueError, SafetensorError) as error:
        raise unreadable(folder / said.file, error) from error
    if digest_of(tensors) != said.weights:
        raise TombolaError(f"the weights in {folder} are not those that {NETWORK} describes; shrink the ticket again")
    return said, tensors


def _network(model: nn.Module | Callable[[], nn.Module] | None) -> nn.Module | None:
    """The whole network that is given, or that what is given makes."""
    if model is None or isinstance(model, nn.Module):
        return model
    made = model() if callable(model) else model
    if not isinstance(made, nn.Module):
        raise TombolaError(f"model gave a {type(made).__name__}; give a network, or a class that makes one when called")
    return made.eval()


def _around(model: nn.Module | None, said: Description, network: nn.Module) -> nn.Module:
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
    put_module(outer, modules_of(outer)[said.inside], network.train(model.training))
    return outer


def _origin_in(folder: Path, said: Description) -> Origin | None:
    """How the network is built; where transformers opens the folder, by its `config.json`."""
    if said.file != PRETRAINED:
        return said.origin
    if said.origin is None or said.origin.library != "transformers":
        raise TombolaError(f"{folder / NETWORK} does not say which network of transformers it is; shrink it again")
    try:
        fields = json_of(content_of(folder / CONFIG))
        return replace(said.origin, arguments=dict(fields))
    except TombolaError as error:
        raise TombolaError(f"{folder / CONFIG} is refused: {error}") from error
    except (OSError, ValueError, TypeError) as error:
        raise unreadable(folder / CONFIG, error) from error


def _check_memory(origin: Origin) -> None:
    """Build a network without values first, so that one larger than the memory is refused in time."""
    try:
        origin.build("meta")
    except TombolaError as error:
        if "larger than this machine" in str(error):
            raise


def _cut_anew(model: nn.Module, said: Description, tensors: Mapping[str, Tensor], folder: Path) -> nn.Module:
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


def _checked_form(
    small: nn.Module, network: Any, plan: Plan, example: Inputs | None, forward: Forward
) -> PretrainedForm:
    """The form that a configuration can say, opened in a process of its own; TombolaError if there is none."""
    form = pretrained_form(network, plan)
    if example is None:
        example, forward, small = network.dummy_inputs, lambda model, inputs: model(**inputs), network
    called, outputs = call_of(small, network, lambda model: forward(model, suited(example, model)))
    with tempfile.TemporaryDirectory() as place:
        _save_pretrained(form.network, Path(place))
        check_opens(Path(place), type(network).__name__, called, outputs)
    return form


def _save_pretrained(network: Any, folder: Path) -> None:
    network.save_pretrained(folder, max_shard_size="10TB")


def _write_pretrained(folder: Path, form: PretrainedForm, inside: str, facts: Mapping[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as place:
        _save_pretrained(form.network, Path(place))
        files = {path.name: content_of(path) for path in Path(place).iterdir() if path.name in FILES}
    weights = digest_of(load_safetensors(files[PRETRAINED]))
    origin = Origin("transformers", type(form.network).__name__)
    _write_description(folder, Description(nothing_cut(), weights, PRETRAINED, origin, inside, facts))
    for name, content in files.items():
        write_atomically(folder / name, content)


def _write_description(folder: Path, said: Description) -> None:
    """Write `network.json`, and remove the weights that an earlier one of the folder named."""
    try:
        earlier = read_description(folder / NETWORK)
    except TombolaError:
        earlier = None
    write_atomically(folder / NETWORK, json.dumps(said.to_json()))
    if earlier is not None and earlier.file != said.file:
        for name in (PRETRAINED, CONFIG, GENERATION) if earlier.file == PRETRAINED else (WEIGHTS,):
            (folder / name).unlink(missing_ok=True)


@torch.no_grad()
def _give_the_same(one: nn.Module, other: nn.Module, example: Inputs, forward: Forward) -> bool:
    """Whether two networks give the same outputs in evaluation mode."""
    outputs = []
    for network in (copied(one).cpu().eval(), copied(other).cpu().eval()):
        outputs.append(tensors_in(forward(network, suited(example, network))))
    return len(outputs[0]) == len(outputs[1]) and all(
        gap_between(*pair) <= TOLERANCE for pair in zip(*outputs, strict=True)
    )
