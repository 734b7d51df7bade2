"""A network that begins with trained weights from a file of yours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tombola.errors import FileError, TombolaError
from tombola.tickets import bare

WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What wrappers and trainers put before the names of a network's tensors."""
INSIDE = ("state_dict", "model_state_dict", "model", "network", "weights")
"""Under what names checkpoints keep a network's tensors."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a network by name, from a file that `torch.save` wrote of its `state_dict()`, or safetensors.

    Args:
        path: of the file. No code in it is run.

    Raises:
        FileError: it cannot be read, or holds no network's tensors.
    """
    path = Path(path)
    try:
        read = load_file if path.suffix == ".safetensors" else _of_torch
        found: Any = read(path)
    except OSError as error:
        raise FileError(
            f"cannot read {path}: {error.strerror or error}; give the file of your network's weights"
        ) from error
    except Exception as error:  # of pickle, zip files and safetensors
        why = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise FileError(
            f"{path} holds no tensors that can be read ({why}); write them with torch.save(network.state_dict(), file)"
        ) from error
    while not _is_state(found):
        inner = next((found[name] for name in INSIDE if isinstance(found, Mapping) and name in found), None)
        if inner is None:
            raise FileError(
                f"{path} holds no network's tensors; write them with torch.save(network.state_dict(), file)"
            )
        found = inner
    return dict(found)


def _of_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _is_state(found: Any) -> bool:
    return isinstance(found, Mapping) and bool(found) and all(isinstance(own, Tensor) for own in found.values())


@dataclass(frozen=True)
class WithWeights:
    """A factory of networks that begin with given values.

    Args:
        factory: makes the network.
        path: where the values are from, for errors.
        values: of its parameters and buffers, by name.
    """

    factory: Callable[[], nn.Module]
    path: str
    values: Mapping[str, Tensor] = field(repr=False)

    def __call__(self) -> nn.Module:
        """A network with these values; TombolaError if they are another network's."""
        model = self.factory()
        if not isinstance(model, nn.Module):
            raise TombolaError(f"the model's factory gave a {type(model).__name__}; it must return an nn.Module")
        network = bare(model)
        names = network.state_dict().keys()
        values = next(
            (renamed for cut in ("", *WRAPPERS) if (renamed := _without(self.values, cut)).keys() == names), self.values
        )
        try:
            network.load_state_dict(values)
        except RuntimeError as error:
            first = " ".join(str(error).splitlines()[1].split()) if "\n" in str(error) else str(error)
            raise TombolaError(f"the weights of {self.path} are another network's: {first[:160]}") from error
        return model


def _without(values: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): own for name, own in values.items()}
