"""Folders of smaller networks of each kind, for the program that spoils them: made, opened, fetched from a Hub."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn

import tombola as tb
from tombola import zoo
from tombola.integrations import hub
from tombola.shrinking import Origin, check_files, preview, save_small, saving, shrink
from tombola.structure import PartUnits

sys.path.insert(0, str(Path(__file__).parents[1] / "integrations"))
from hub_stand_in import stand_in

NAMES = ("named", "own", "pretrained", "units")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
SIZES |= {"vocab_size": 20, "max_position_embeddings": 8, "num_labels": 2}
LENET = ("lenet-300-100", (1, 8, 8), 10, 0.1)
WORDS = {"input_ids": torch.tensor([[5, 6, 7], [9, 10, 11]])}


def make(folder: Path) -> int:
    """Write one folder of each kind into a folder."""
    saving.check_opens = lambda *_: None  # a process of its own, each time
    images, origin = torch.ones(2, 1, 8, 8), Origin("tombola", LENET[0], {"input_shape": LENET[1], "width": LENET[3]})
    small = _cut(zoo.model(*LENET)(), tb.Channels(), images)
    save_small(folder / "named", *small, origin=origin)
    save_small(folder / "own", *small)
    words = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, "good": 5}, unk_token="[UNK]"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    for name, kind in (("pretrained", "neuron"), ("units", "head")):
        model = transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES)).eval()
        saved = save_small(folder / name, *_cut(model, PartUnits(kind), WORDS), example=WORDS, processor=tokenizer)
        assert (saved.opener == "transformers") == (name == "pretrained")
    return 0


def _cut(model: nn.Module, granularity: Any, example: Any) -> tuple[nn.Module, tb.shrinking.Plan]:
    call = (lambda own: own(**example)) if isinstance(example, dict) else (lambda own: own(example))
    units = granularity.units(model, call)
    kept = units.choose(tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1)
    mask = units.expand(kept, dict(model.named_parameters()))
    return shrink(model, mask, example=example).eval(), preview(model, mask, example)


def opened(folder: Path) -> int:
    """Open a folder as its user does, and then its tokenizer, whose own errors are transformers'."""
    said = check_files(folder)
    try:
        network = tb.load_small(folder)
    except tb.TombolaError:
        if said.origin is not None:
            raise
        network = tb.load_small(folder, zoo.model(*LENET))
    assert isinstance(network, nn.Module)
    try:
        transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)("good bad")
    except Exception as error:
        print("the tokenizer is refused:", type(error).__name__)
    return 0


def pulled(source: Path, target: Path, more: Mapping[str, bytes], sizes: Mapping[str, int | None]) -> int:
    """Fetch a repository that holds the files of a folder, and more, from a stand-in of the Hub, and open it."""
    huggingface_hub.constants.HF_HUB_DISABLE_XET = True
    with stand_in() as there:
        there.files["me/small"] = {name: (source / name).read_bytes() for name in files_in(source)} | dict(more)
        there.sizes |= dict(sizes)  # ty: ignore[no-matching-overload]
        found = hub.pull("me/small", target, endpoint=there.endpoint, token="hf_test")
    if found.kind == "ticket":
        tb.Ticket.load(target / "ticket.safetensors")
        return 0
    return opened(target)


def files_in(folder: Path) -> set[str]:
    """The names of the files in a folder."""
    return {path.name for path in folder.iterdir()}
