"""What reads a network's inputs lies beside the smaller one: found where it came from, or given; it chooses no code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import tombola as tb
from tombola import TombolaError
from tombola.shrinking import ShrinkWarning, preview, save_small, saving, shrink
from tombola.structure import PartUnits

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SIZES |= {"vocab_size": 20, "max_position_embeddings": 8}
WORDS = {"input_ids": torch.tensor([[5, 6, 7], [9, 10, 11]])}


def tokenizer(good: int = 5):
    own = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "[UNK]": 1, "good": good}, unk_token="[UNK]"))
    own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=own, pad_token="[PAD]", unk_token="[UNK]")


def pieces_of(folder: Path) -> list[int]:
    return transformers.AutoTokenizer.from_pretrained(folder)("good bad")["input_ids"]


@pytest.fixture
def whole(tmp_path) -> nn.Module:
    """A network of transformers from a folder with its tokenizer, inside a class of the user's own."""
    transformers.BertModel(transformers.BertConfig(**SIZES)).save_pretrained(tmp_path / "whole")
    tokenizer().save_pretrained(tmp_path / "whole")

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = transformers.AutoModel.from_pretrained(tmp_path / "whole")
            self.head = nn.Linear(16, 2)

        def forward(self, input_ids):
            return self.head(self.encoder(input_ids=input_ids).last_hidden_state[:, 0])

    return Reader().eval()


def cut(model: nn.Module) -> tuple[nn.Module, tb.shrinking.Plan]:
    units = PartUnits("neuron").units(model, lambda own: own(**WORDS))
    kept = units.choose(tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1)
    mask = units.expand(kept, dict(model.named_parameters()))
    return shrink(model, mask, example=WORDS).eval(), preview(model, mask, WORDS)


def test_the_tokenizer_of_the_folder_that_the_network_came_from_lies_beside_it(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "check_opens", lambda *_: None)
    saved = save_small(tmp_path / "small", *cut(whole), example=WORDS)
    assert saved.beside == ("tokenizer_config.json", "tokenizer.json")
    assert saved.processor_code == f'transformers.AutoTokenizer.from_pretrained("{tmp_path / "small"}")'
    assert pieces_of(tmp_path / "small") == [5, 1]
    alone = whole.encoder
    assert save_small(tmp_path / "alone", *cut(alone)).opener == "transformers"
    again = tb.load_small(tmp_path / "alone")
    assert save_small(tmp_path / "twice", *cut(again)).beside == saved.beside


@pytest.fixture
def small() -> tuple[nn.Module, tb.shrinking.Plan]:
    model, rows = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.tensor([True, False, True])
    mask = tb.Mask.of({"0.weight": rows[:, None].expand(3, 4), "0.bias": rows})
    return shrink(model, mask, example=torch.ones(1, 4)), preview(model, mask, torch.ones(1, 4))


def test_one_that_is_given_is_written_and_goes_with_the_network_that_follows(small, tmp_path):
    folder = tmp_path / "small"
    save_small(folder, *small, processor=tokenizer())
    assert pieces_of(folder) == [5, 1]
    tokenizer(good=7).save_pretrained(tmp_path / "other")
    assert "tokenizer.json" in save_small(folder, *small, processor=tmp_path / "other").beside
    assert pieces_of(folder) == [7, 1]
    assert save_small(folder, *small).beside == ()
    assert {path.name for path in folder.iterdir()} == {"network.json", "weights.safetensors"}


def test_a_tokenizer_that_somebody_put_there_stays(small, tmp_path):
    save_small(tmp_path, *small)
    tokenizer(good=9).save_pretrained(tmp_path)
    with pytest.warns(ShrinkWarning, match=r"was not written by Tombola and stays"):
        assert save_small(tmp_path, *small, processor=tokenizer()).beside == ()
    assert pieces_of(tmp_path) == [9, 1]
    assert save_small(tmp_path, *small, processor=tokenizer(good=9)).beside == ()
    save_small(tmp_path, *small)
    assert pieces_of(tmp_path) == [9, 1]


def test_it_brings_no_paths_and_no_code(small, tmp_path):
    source = tmp_path / "source"
    tokenizer().save_pretrained(source)
    path = source / "tokenizer_config.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"name_or_path": "/home/ann/net", "tokenizer_file": "/etc/passwd"}))
    save_small(tmp_path / "small", *small, processor=source)
    assert json.loads((tmp_path / "small" / "tokenizer_config.json").read_text()) == said
    path.write_text(json.dumps(said | {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    with pytest.raises(TombolaError, match="chooses code by 'auto_map'"):
        save_small(tmp_path / "small", *small, processor=source)
    (tmp_path / "small" / "tokenizer_config.json").write_bytes(path.read_bytes())
    with pytest.raises(TombolaError, match="chooses code by 'auto_map'"):
        tb.shrinking.check_files(tmp_path / "small")
    (tmp_path / "small" / "tokenizer_config.json").unlink()
    (tmp_path / "small" / "vocab.txt").symlink_to(path)  # which a push would send
    with pytest.raises(TombolaError, match=r"vocab\.txt is a link"):
        tb.shrinking.check_files(tmp_path / "small")


def test_a_network_whose_tokenizer_cannot_be_taken_is_saved_without_it(whole, tmp_path):
    (tmp_path / "whole" / "tokenizer_config.json").write_text("[]")
    with pytest.warns(ShrinkWarning, match=r"tokenizer is not put beside it: tokenizer_config\.json cannot be read"):
        assert save_small(tmp_path / "small", *cut(whole)).beside == ()


@pytest.mark.parametrize("given", ["nowhere", 3, nn.Linear(1, 1)])
def test_what_is_no_tokenizer_is_refused_before_anything_is_written(given, small, tmp_path):
    with pytest.raises(TombolaError, match="no tokenizer or processor"):
        save_small(tmp_path / "small", *small, processor=given)
    assert not (tmp_path / "small").exists()
