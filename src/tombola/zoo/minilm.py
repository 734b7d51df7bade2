"""Pretrained transformers: all-MiniLM-L6-v2 (Wang et al., NeurIPS 2020), and any other from a folder of your own."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.zoo.input_shapes import Shape
from tombola.zoo.word_pieces import minilm_folder, tokenizer_in, transformers


class SentenceClassifier(nn.Module):
    """A Hugging Face network with a classifier, called on word pieces (n, length).

    Args:
        encoder: takes `input_ids` and `attention_mask`.
        padding: the piece that fills up short texts.
        separator: the piece after which the second text of a pair begins, for networks that are told which text a
            piece is of; None for others.
    """

    def __init__(self, encoder: nn.Module, padding: int = 0, separator: int | None = None) -> None:
        super().__init__()
        self.encoder, self.padding, self.separator = encoder, padding, separator

    def forward(self, pieces: Tensor) -> Tensor:
        mask, more = pieces != self.padding, {}
        if self.separator is not None:
            ends = (pieces == self.separator).long()
            more["token_type_ids"] = ((ends.cumsum(1) - ends).clamp(max=1) * mask).long()
        return self.encoder(input_ids=pieces, attention_mask=mask.long(), **more).logits


def minilm(input_shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """Pretrained BERT with 6 layers of 12 heads, 22.7 M parameters, under a new classifier. Needs the extra `text`.

    Args:
        input_shape: (length,), for sentences of so many word pieces.
        classes: how many classes the network tells apart.
        width: 1, since the weights are pretrained.

    Raises:
        TombolaError: if the inputs are no sentences, for another width, and if transformers or the weights are missing.
    """
    _check("minilm", input_shape, width)
    library, folder = transformers(), minilm_folder()
    config = library.AutoConfig.from_pretrained(folder, num_labels=classes)
    _check_length("minilm", input_shape, config)
    model = library.AutoModelForSequenceClassification.from_config(config)
    if not next(model.parameters()).is_meta:  # on the meta device the model is built only to try its inputs
        model.bert.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    return SentenceClassifier(model, separator=102)


def pretrained(folder: Path | str, input_shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """The pretrained network in a folder, as it was downloaded or saved by transformers, under a new classifier.

    Args:
        folder: holds config.json, model.safetensors and the tokenizer's files.
        input_shape: (length,), for texts of so many word pieces.
        classes: how many classes the network tells apart, or numbers that it gives.
        width: 1, since the weights are pretrained.

    Raises:
        TombolaError: if the folder holds no such network, the inputs are no texts or too long for it, and for another
            width.
    """
    name, library = f"pretrained:{folder}", transformers()
    _check(name, input_shape, width)
    if not (Path(folder) / "config.json").is_file():
        raise TombolaError(f"{folder} has no config.json; give the folder of a network that transformers has saved")
    tokenizer = tokenizer_in(Path(folder))
    kind = library.AutoModelForSequenceClassification
    try:
        config = library.AutoConfig.from_pretrained(folder, num_labels=classes, local_files_only=True)
        _check_length(name, input_shape, config)
        config.pad_token_id = tokenizer.pad_token_id
        if torch.empty(0).is_meta:
            model = kind.from_config(config)
        else:
            with _quiet(library):
                model = kind.from_pretrained(folder, config=config, local_files_only=True)
    except TombolaError:
        raise
    except Exception as error:
        raise TombolaError(
            f"{folder} holds no network that classifies texts ({str(error).splitlines()[0]}); give the folder of an "
            "encoder or decoder of transformers"
        ) from error
    types = getattr(config, "type_vocab_size", 0) or 0
    return SentenceClassifier(model.float(), tokenizer.pad_token_id, tokenizer.sep_token_id if types > 1 else None)


def _check(name: str, input_shape: Shape, width: float) -> None:
    if len(input_shape) != 1:
        raise TombolaError(f"{name} takes sentences, as --data vader has them, but the inputs are {input_shape}")
    if width != 1.0:
        raise TombolaError(f"{name} is pretrained and has one width; leave --width {width:g} out")


def _check_length(name: str, input_shape: Shape, config: Any) -> None:
    positions = getattr(config, "max_position_embeddings", None)
    if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert") and positions:
        positions -= config.pad_token_id + 1  # which it leaves free
    if positions and input_shape[0] > positions:
        raise TombolaError(
            f"the texts have {input_shape[0]} word pieces and {name} has {positions} positions; give --pieces "
            f"{positions} or less, by which longer texts are cut"
        )


@contextmanager
def _quiet(library: Any) -> Generator[None]:
    """Without transformers' bars, and its warning that the classifier is new, as this module's functions say."""
    level, bars = library.logging.get_verbosity(), library.utils.logging.is_progress_bar_enabled()
    library.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        library.logging.set_verbosity(level)
        if bars:
            library.utils.logging.enable_progress_bar()
