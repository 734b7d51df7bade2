"""The file of a ticket: safetensors with a checked JSON description beside the tensors. Never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from tombola.errors import DamagedError, FileError
from tombola.files import FORMAT, NewerFormat, check_format, content_of, strict_json, write_atomically
from tombola.tickets.tensors import digest_of

T = TypeVar("T")


def write_file(
    path: Path, description: Mapping[str, Any], tensors: Mapping[str, Tensor], kind: str = "tombola"
) -> None:
    """Write tensors and their description, with the format's version and a digest of both; `kind` says of what."""
    content = {"format": FORMAT, **description}
    content["digest"] = _digest(content, tensors)
    write_atomically(path, save_safetensors(dict(tensors), {kind: json.dumps(content)}))


def read_file(path: Path, decode: Callable[[dict[str, Any], dict[str, Tensor]], T]) -> T:
    """Read a file and decode it; raises TombolaError that names what is missing, cut off or altered."""
    try:
        return decode(*parts_of(content_of(path)))
    except OSError as error:
        raise FileError(f"cannot read the ticket {path}: {error.strerror}; give the path of a ticket's file") from error
    except NewerFormat as error:
        raise FileError(f"{path} {error}") from error
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        SafetensorError,
        RecursionError,
        OverflowError,
        RuntimeError,
    ) as error:
        raise DamagedError(
            f"{path} is not a whole, unaltered ticket: {str(error) or type(error).__name__}; copy it again or "
            "repeat the search that made it"
        ) from error


def parts_of(data: bytes, kind: str = "tombola", what: str = "ticket") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the tensors that `write_file` wrote.

    Raises:
        ValueError: they are not as they were written. Other errors may be raised of what is no such file at all.
    """
    tensors = load_safetensors(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    text = header.get("__metadata__", {}).get(kind)
    if text is None:
        raise ValueError(f"it is a safetensors file without a {what} in it")
    content = strict_json(text)
    check_format(content)
    if content.pop("digest", None) != _digest(content, tensors):
        raise ValueError("its contents do not match its digest")
    return content, tensors


def _digest(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    described = json.dumps(content, sort_keys=True)
    return hashlib.blake2b((described + digest_of(tensors)).encode(), digest_size=16).hexdigest()
