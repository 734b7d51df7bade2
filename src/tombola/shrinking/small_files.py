"""Saves a smaller network as two files, its weights and the channels that were kept, and loads it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from tombola.errors import FileError, TombolaError
from tombola.files import content_of, json_of, write_atomically
from tombola.shrinking.cutting import Kept, cut
from tombola.shrinking.plan import Plan
from tombola.shrinking.silent_layers import Silence
from tombola.structure import Count, Passing, Place, PlacedPart, Removed, is_count
from tombola.tickets import digest_of, put_values, tensors_of

WEIGHTS, NETWORK = "weights.safetensors", "network.json"
FORMAT = 1


def save_small(folder: str | Path, small: nn.Module, plan: Plan, facts: Mapping[str, Any] | None = None) -> None:
    """Write a smaller network as `weights.safetensors` and `network.json`.

    Args:
        folder: where to write them.
        small: the network that `shrink` returned.
        plan: what was cut, as `preview` returns it.
        facts: any further JSON to keep in `network.json`.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors_of(small).items()}
    content = {
        "format": FORMAT,
        "facts": dict(facts or {}),
        "kept": {name: {"inputs": kept.inputs, "outputs": kept.outputs} for name, kept in plan.kept.items()},
        "idle": list(plan.idle),
        "passes": {name: asdict(passing) for name, passing in plan.passes.items()},
        "silent": [asdict(part) for part in plan.silent],
        "parts": [{"part": asdict(part), "removed": list(units)} for part, units in plan.parts],
        "weights": digest_of(tensors),
    }
    # The description first: after a kill in between, it says that the folder is ours to write again.
    write_atomically(Path(folder) / NETWORK, json.dumps(content))
    write_atomically(Path(folder) / WEIGHTS, save_safetensors(tensors))


def check_place(folder: str | Path, *more: str) -> None:
    """Refuse a folder in which `save_small` would replace files that it did not write.

    Args:
        folder: where the network is to be written.
        more: names of further files that are written beside it.

    Raises:
        FileError: there are such files.
    """
    folder = Path(folder)
    present = [name for name in (NETWORK, WEIGHTS, *more) if (folder / name).exists()]
    try:
        _read_network(folder / NETWORK)
    except TombolaError as error:
        if present:
            raise FileError(
                f"{folder / present[0]} is not of a network that Tombola shrank; choose another --out, so that it stays"
            ) from error


def load_small(folder: str | Path, model: nn.Module) -> nn.Module:
    """Load a smaller network from a folder.

    Args:
        folder: where `save_small`, or `tombola shrink --out`, wrote it.
        model: a whole network of the class and size that was shrunk; its weights do not matter, and it is not changed.

    Returns:
        The smaller network.

    Raises:
        TombolaError: a file is missing or altered, or the model is of another class or size.

    Examples:
        >>> import tempfile, torch
        >>> from tombola.shrinking import preview, shrink
        >>> from tombola.tickets import Mask
        >>> model, example = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(1, 4)
        >>> rows = torch.tensor([True, False, True])
        >>> mask = Mask.of({"0.weight": rows[:, None].expand(3, 4), "0.bias": rows})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_small(folder, shrink(model, mask, example=example), preview(model, mask, example))
        ...     print(load_small(folder, model)[0])
        Linear(in_features=4, out_features=2, bias=True)
    """
    content = _read_network(Path(folder) / NETWORK)
    try:
        tensors = load_safetensors(content_of(Path(folder) / WEIGHTS))
    except (OSError, ValueError, SafetensorError) as error:
        raise _unreadable(Path(folder) / WEIGHTS, error) from error
    if digest_of(tensors) != content["weights"]:
        raise TombolaError(f"the weights in {folder} are not those that {NETWORK} describes; shrink the ticket again")
    _check_fits(content["parts"], tensors_of(model), Path(folder))
    try:
        small = cut(model, content["kept"], content["idle"], content["parts"], content["passes"], content["silent"])
    except TombolaError:
        raise
    except (LookupError, AttributeError, RuntimeError, TypeError, ValueError, ArithmeticError, MemoryError) as error:
        raise TombolaError(
            f"{folder} was cut out of another network ({error}); give a model of the class and size that was shrunk"
        ) from error
    put_values(small, tensors)
    return small


def _read_network(path: Path) -> dict[str, Any]:
    """The checked content of `network.json`, with `Kept` for each layer."""
    try:
        content = json_of(content_of(path))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, this version of Tombola reads {FORMAT}")
        kept = {name: _kept(channels) for name, channels in content["kept"].items()}
        idle = content.get("idle", [])
        if not all(isinstance(name, str) for name in idle):
            raise ValueError("it does not list idle blocks by name")
        parts = [(_part(own["part"]), tuple(map(_number, own["removed"]))) for own in content.get("parts", [])]
        passes = {name: _passing(own) for name, own in content.get("passes", {}).items()}
        silent = [_silence(own) for own in content.get("silent", [])]
        read = {"kept": kept, "idle": idle, "parts": parts, "passes": passes, "silent": silent}
        return read | {"weights": str(content["weights"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from error


def _check_fits(parts: Removed, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse units that lie outside a network's tensors, before any of them is looked for."""
    sides = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    largest = max((side for shape in sides.values() for side in shape), default=0)
    for part, units in parts:
        for place in part.places:
            shape = sides.get(place.tensor)
            side = largest if shape is None else shape[place.dim] if place.dim < len(shape) else 0
            if place.start + part.size * place.inner * place.outer > side or max(units, default=0) >= part.size:
                raise TombolaError(
                    f"{folder} was cut out of another network ('{place.tensor}' has no such units); give a model of "
                    "the class and size that was shrunk"
                )


def _part(described: Mapping[str, Any]) -> PlacedPart:
    """A part as it is described, whose attributes are those that say how many units there are."""
    places = tuple(Place(**place) for place in described["places"])
    counts = tuple(Count(**count) for count in described["counts"])
    numbers = [described["size"], *(number for p in places for number in (p.dim, p.inner, p.outer, p.start))]
    numbers += [number for count in counts for number in (count.factor, count.base)]
    texts = [described["kind"], described["name"], described["owner"], *described["freed"], *described["layers"]]
    texts += [text for p in places for text in (p.tensor, p.role)] + [count.module for count in counts]
    if not all(map(is_count, (count.attribute for count in counts))) or not all(isinstance(t, str) for t in texts):
        raise ValueError("it sets what is no number of heads or neurons")
    for number in numbers:
        _number(number)
    changed: dict[str, Any] = {**described, "places": places, "counts": counts}
    changed |= {name: tuple(described[name]) for name in ("freed", "layers")}
    return PlacedPart(**changed)


def _passing(described: Mapping[str, Any]) -> Passing:
    names, returns = described["names"], described["returns"]
    texts = [returns] if isinstance(returns, str) else [own for own in returns if own is not None]
    if not all(isinstance(text, str) for text in [*names, *texts]):
        raise ValueError("it does not name the arguments of blocks")
    return Passing(tuple(names), returns if isinstance(returns, str) else tuple(returns))


def _silence(described: Mapping[str, Any]) -> Silence:
    makes, takes, bias = tuple(described["makes"]), described["takes"], described["bias"]
    if not all(isinstance(name, str) for name in (*makes, takes)) or not isinstance(bias, bool):
        raise ValueError("it does not name the layers of feed-forward parts")
    return Silence(makes, takes, bias)


def _number(value: Any) -> int:
    # `type` and not isinstance: JSON's true and false are integers in Python.
    if type(value) is not int or value < 0:
        raise ValueError("it does not list channels by number")
    return value


def _kept(channels: Mapping[str, Any]) -> Kept:
    inputs, outputs = channels["inputs"], channels["outputs"]
    return Kept(None if inputs is None else tuple(map(_number, inputs)), tuple(map(_number, outputs)))


def _unreadable(path: Path, error: Exception) -> TombolaError:
    return TombolaError(f"cannot read {path}: {error}; give the folder that `tombola shrink --out` wrote")
