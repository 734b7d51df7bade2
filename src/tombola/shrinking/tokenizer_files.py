"""The files of a tokenizer or processor of transformers, which lie beside a smaller network as beside the whole one."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from tombola.errors import TombolaError
from tombola.files import content_of, strict_json
from tombola.shrinking.origin import chooses
from tombola.tickets import modules_of

CONFIGURATIONS = ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
CONFIGURATIONS += ("video_preprocessor_config.json",)
"""The files that say which class of transformers reads the others."""
VOCABULARIES = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
VOCABULARIES += ("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
VOCABULARIES += ("spm.model", "spm_char.model", "sentencepiece.model", "source.spm", "target.spm", "bpe.codes")
VOCABULARIES += ("prophetnet.tokenizer", "entity_vocab.json", "emoji.json", "dict.txt", "byte_maps.json")
VOCABULARIES += ("normalizer.json",)
CHECKED = (*CONFIGURATIONS, "generation_config.json")
TOKENIZER = (*CONFIGURATIONS, *VOCABULARIES)
"""What transformers calls the files of its tokenizers and processors."""

Processor = Any
"""A tokenizer or processor of transformers; or the folder that holds its files."""


def tokenizer_files(processor: Processor | None, network: nn.Module) -> dict[str, bytes]:
    """The files of a tokenizer or processor, by name.

    Args:
        processor: it, or the folder of its files; None for that of the network of transformers within `network`, in the
            folder or in the cache of the Hub from which this was loaded.
        network: the network that goes with it.

    Returns:
        The files' content; nothing if the network came without any.

    Raises:
        TombolaError: what is given is no tokenizer or processor, or chooses code.
    """
    if processor is None:
        return _checked(_files_of(network))
    if isinstance(processor, str | Path):
        found = _in_folder(Path(processor))
        if not found:
            raise TombolaError(
                f"there is no tokenizer or processor in {processor}; give the folder of its files, as "
                "tokenizer_config.json"
            )
        return _checked(found)
    save = getattr(processor, "save_pretrained", None)
    if save is None or isinstance(processor, nn.Module):
        raise TombolaError(
            f"a {type(processor).__name__} is no tokenizer or processor of transformers; give one, or its folder"
        )
    with tempfile.TemporaryDirectory() as place:
        save(place)
        return _checked(_in_folder(Path(place)))


def checked_file(name: str, content: bytes) -> bytes:
    """A file beside a network, without the paths of another machine.

    Args:
        name: the file's.
        content: as it was found.

    Raises:
        TombolaError: it cannot be read, or chooses code.
    """
    if name not in CHECKED:
        return content
    try:
        fields = strict_json(content)
        if not isinstance(fields, dict):
            raise ValueError("it is no table of fields")
    except ValueError as error:
        raise TombolaError(f"{name} cannot be read ({error}); save the tokenizer or processor again") from error
    plain = _without_paths(name, fields)
    return content if plain == fields else json.dumps(plain, indent=2).encode()


def _checked(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: checked_file(name, content) for name, content in files.items()}


def _without_paths(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration but those that name files; TombolaError if one chooses code."""
    plain = {}
    for key, value in fields.items():
        if chooses(key) and value:
            raise TombolaError(f"{name} chooses code by '{key}', which a file may not; remove the field if you know it")
        if key == "name_or_path" or key.endswith(("_file", "_files", "_path")):
            continue
        plain[key] = _without_paths(name, value) if isinstance(value, Mapping) else value
    return plain


def _files_of(network: nn.Module) -> dict[str, bytes]:
    """The files with which a network of transformers, here or within, was loaded."""
    library: Any = sys.modules.get("transformers")
    within = modules_of(network).values() if library is not None else ()
    for own in (module for module in within if isinstance(module, library.PreTrainedModel)):
        source = str(getattr(own, "name_or_path", "") or "")
        if source:
            return _in_folder(Path(source)) if Path(source).is_dir() else _in_cache(source)
    return {}


def _in_folder(folder: Path) -> dict[str, bytes]:
    return {name: content_of(folder / name) for name in TOKENIZER if (folder / name).is_file()}


def _in_cache(repo: str) -> dict[str, bytes]:
    """What was fetched of a repository of the Hub before."""
    if not find_spec("huggingface_hub"):
        return {}
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = {name: try_to_load_from_cache(repo, name) for name in TOKENIZER}
    except HFValidationError:  # a path that is not there any more
        return {}
    return {name: content_of(Path(path)) for name, path in found.items() if isinstance(path, str)}
