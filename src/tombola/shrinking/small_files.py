"""A smaller network as two files: its weights, and what was cut out of the network that it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import nn

from tombola.errors import TombolaError
from tombola.files import write_atomically
from tombola.shrinking.cutting import Kept, cut
from tombola.shrinking.plan import Plan
from tombola.tickets import digest_of, put_values, tensors_of

WEIGHTS, NETWORK = "weights.safetensors", "network.json"
FORMAT = 1


def save_small(folder: str | Path, small: nn.Module, plan: Plan, facts: Mapping[str, Any] | None = None) -> None:
    """Write `weights.safetensors` and `network.json`: what of each layer was kept, and the facts that you add."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors_of(small).items()}
    content = {
        "format": FORMAT,
        "facts": dict(facts or {}),
        "kept": {name: {"inputs": own.inputs, "outputs": own.outputs} for name, own in plan.kept.items()},
        "idle": list(plan.idle),
        "weights": digest_of(tensors),
    }
    write_atomically(Path(folder) / WEIGHTS, save_safetensors(tensors))
    write_atomically(Path(folder) / NETWORK, json.dumps(content))


def load_small(folder: str | Path, model: nn.Module) -> nn.Module:
    """The smaller network in a folder, from a whole network of the class that it was cut out of.

    Raises TombolaError if a file is missing or altered, or the network is another one.
    """
    content = _described(Path(folder) / NETWORK)
    try:
        tensors = load_safetensors((Path(folder) / WEIGHTS).read_bytes())
    except (OSError, SafetensorError) as error:
        raise _unreadable(Path(folder) / WEIGHTS, error) from error
    if digest_of(tensors) != content["weights"]:
        raise TombolaError(f"the weights in {folder} are not those that {NETWORK} describes; shrink the ticket again")
    try:
        small = cut(model, content["kept"], content["idle"])
    except (KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise TombolaError(
            f"{folder} was cut out of another network ({error}); give a model of the class and size it was found on"
        ) from error
    put_values(small, tensors)
    return small


def _described(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, this version of Tombola reads {FORMAT}")
        kept = {name: _kept(own) for name, own in content["kept"].items()}
        idle = content.get("idle", [])
        if not all(isinstance(name, str) for name in idle):
            raise ValueError("it does not list idle blocks by name")
        return {"kept": kept, "idle": idle, "weights": str(content["weights"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from error


def _kept(own: Mapping[str, Any]) -> Kept:
    inputs, outputs = own["inputs"], own["outputs"]
    if any(type(number) is not int or number < 0 for number in [*(inputs or ()), *outputs]):
        raise ValueError("it does not list channels by number")
    return Kept(None if inputs is None else tuple(inputs), tuple(outputs))


def _unreadable(path: Path, error: Exception) -> TombolaError:
    return TombolaError(f"cannot read {path}: {error}; give the folder that `tombola shrink --out` wrote")
