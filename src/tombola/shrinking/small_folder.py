"""The folder of a smaller network: what it may hold, what it says of itself, and what opens it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from tombola.errors import FileError, TombolaError
from tombola.files import check_no_link, content_of, json_of, write_atomically
from tombola.shrinking.network_description import PRETRAINED, WEIGHTS, Description, read_description, unreadable
from tombola.shrinking.origin import Origin
from tombola.shrinking.tokenizer_files import TOKENIZER, checked_file
from tombola.tickets import digest_of

NETWORK, CONFIG, GENERATION = "network.json", "config.json", "generation_config.json"
FILES = (NETWORK, WEIGHTS, PRETRAINED, CONFIG, GENERATION)
"""What a smaller network's folder may hold beside the files of a tokenizer or processor."""


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
        beside: the names of the files of its tokenizer or processor that were written beside it.
    """

    folder: Path
    opener: Literal["transformers", "name", "class"]
    network: str = ""
    why: str = ""
    zeros: int = 0
    beside: tuple[str, ...] = ()

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

    @property
    def processor_code(self) -> str:
        """The line of Python that opens the tokenizer or processor beside it; empty if there is none."""
        if not self.beside:
            return ""
        kind = "AutoProcessor" if any("processor" in name for name in self.beside) else "AutoTokenizer"
        return f'transformers.{kind}.from_pretrained("{self.folder}")'


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


def check_files(folder: Path) -> Description:
    """Check what a folder of a smaller network holds, without building anything.

    Args:
        folder: what was received.

    Returns:
        What it says of itself.

    Raises:
        TombolaError: a file is missing, altered, or chooses what a file may not choose.
    """
    said, _ = read_small(folder)
    origin_in(folder, said)
    for name in (*files_of(said), *TOKENIZER):
        if name in TOKENIZER:  # whose content nothing else checks
            check_no_link(folder / name)
        if (folder / name).is_file():
            checked_file(name, content_of(folder / name))
    return said


def opener_of(said: Description, folder: str | Path) -> Saved:
    """What opens a folder.

    Args:
        said: what the folder says of itself.
        folder: its path, or its name on the Hub.
    """
    name = "" if said.origin is None else said.origin.name
    opener = "transformers" if said.file == PRETRAINED else "name" if said.origin is not None else "class"
    return Saved(Path(folder), opener, name, beside=said.beside)


def add_facts(folder: str | Path, facts: Mapping[str, Any]) -> None:
    """Keep further facts in the `network.json` of a smaller network.

    Args:
        folder: the network's.
        facts: any JSON, by name.
    """
    said = read_description(Path(folder) / NETWORK)
    said = replace(said, facts={**said.facts, **facts})
    write_atomically(Path(folder) / NETWORK, json.dumps(said.to_json()))


def read_small(folder: Path) -> tuple[Description, dict[str, Tensor]]:
    """What a folder says, and its tensors."""
    said = read_description(folder / NETWORK)
    try:
        tensors = load_safetensors(content_of(folder / said.file))
    except (OSError, ValueError, SafetensorError) as error:
        raise unreadable(folder / said.file, error) from error
    if digest_of(tensors) != said.weights:
        raise TombolaError(f"the weights in {folder} are not those that {NETWORK} describes; shrink the ticket again")
    return said, tensors


def origin_in(folder: Path, said: Description) -> Origin | None:
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


def written_by_us(folder: Path) -> tuple[str, ...]:
    """The names of the files in a folder that are of the smaller network that was saved there; none if none was.

    Args:
        folder: which may not be there.
    """
    try:
        said = read_description(folder / NETWORK)
    except TombolaError:
        return ()
    return (*files_of(said), *said.beside)


def files_of(said: Description) -> tuple[str, ...]:
    """The names of the files that a smaller network is in, `network.json` first; the last need not be there.

    Args:
        said: what the folder says of itself.
    """
    return (NETWORK, PRETRAINED, CONFIG, GENERATION) if said.file == PRETRAINED else (NETWORK, WEIGHTS)


def put(folder: Path, files: Mapping[str, bytes | str]) -> None:
    """Write the files of a smaller network, and remove those of an earlier one that was here.

    The description goes first: after a kill in between, it says that the folder is ours to write again.

    Args:
        folder: where to.
        files: their content by name, `network.json` first.
    """
    earlier = written_by_us(folder)
    for number, (name, content) in enumerate(files.items()):
        write_atomically(folder / name, content)
        if not number:
            for old in set(earlier) - set(files):
                (folder / old).unlink(missing_ok=True)
