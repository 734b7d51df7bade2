"""Data sets and collators of Hugging Face, with the real libraries."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import tombola as tb

datasets = pytest.importorskip("datasets", exc_type=ImportError)
transformers = pytest.importorskip("transformers", exc_type=ImportError)

SAMPLES = 40
X = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2))

    def forward(self, x):
        return self.head(x)


def columns(part=slice(None)):
    return {"x": X[part].tolist(), "label": Y[part].tolist()}


def rows():
    yield from ({"x": x.tolist(), "label": int(y)} for x, y in zip(X, Y, strict=True))


def recipe_of_all():
    return tb.Recipe(epochs=2, batch=10, precision="float32")


def task_of(train, **how) -> tb.SupervisedTask:
    whole = datasets.Dataset.from_dict(columns())
    data = {"train": train, "validation": whole, "test": whole}
    return tb.SupervisedTask(Named, data, recipe=recipe_of_all(), **how)


@pytest.mark.parametrize("form", [None, "torch", "numpy"])
def test_rows_train_as_tensors_do(form):
    whole = datasets.Dataset.from_dict(columns()).with_format(form)
    trained = tb.train(task_of(whole), seed=3)
    data = {split: {"x": X, "label": Y} for split in ("train", "validation", "test")}
    tensors = tb.SupervisedTask(Named, data, recipe=recipe_of_all())
    expected = tb.train(tensors, seed=3)
    pairs = zip(trained.model.parameters(), expected.model.parameters(), strict=True)
    assert all(torch.allclose(own, other, atol=1e-6) for own, other in pairs)
    assert trained.cost.samples_backward == 2 * SAMPLES


def test_a_dict_of_splits_is_the_data_and_a_part_is_set_aside():
    splits = datasets.DatasetDict(
        train=datasets.Dataset.from_dict(columns()), test=datasets.Dataset.from_dict(columns())
    )
    task = tb.SupervisedTask(Named, splits, recipe=recipe_of_all())
    assert sum(len(targets) for _, targets in task.batches("validation", 0, 0)) == 4
    again = tb.SupervisedTask(Named, splits, recipe=recipe_of_all())
    assert task.data_digest == again.data_digest
    assert tb.find(task, tb.OneShot(density=0.5, score=tb.scores.snip)).density == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.filterwarnings("ignore::tombola.training.DataWarning")
def test_a_stream_is_told_the_epoch_and_left_as_it_was(shuffled):
    stream = datasets.IterableDataset.from_generator(rows)
    stream = stream.shuffle(seed=1, buffer_size=SAMPLES) if shuffled else stream
    task = task_of(stream, steps_per_epoch=4)
    read = [torch.cat([targets for _, targets in task.batches("train", 0, epoch)]) for epoch in (0, 1, 0)]
    assert torch.equal(read[0], read[2])
    assert torch.equal(read[0], read[1]) is not shuffled
    assert stream.epoch == 0
    assert tb.train(task).cost.samples_backward == 2 * SAMPLES


def test_a_collator_pads_and_names_the_labels():
    vocabulary = {word: place for place, word in enumerate(("[PAD]", "[UNK]", "a", "b"))}
    model = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(vocabulary), pad_token="[PAD]", unk_token="[UNK]"
    )
    texts = [" ".join("ab"[(place + word) % 2] for word in range(1 + place % 4)) for place in range(SAMPLES)]
    tokens = datasets.Dataset.from_dict({"text": texts, "label": Y.tolist()})
    tokens = tokens.map(lambda row: model(row["text"])).remove_columns("text")
    collator = transformers.DataCollatorWithPadding(model)

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(4, 8), nn.Linear(8, 2)

        def forward(self, input_ids, attention_mask, **_):
            return self.head((self.words(input_ids) * attention_mask[..., None]).mean(1))

    loader = DataLoader(tokens, 8, shuffle=True, collate_fn=collator)
    splits = dict.fromkeys(("train", "validation", "test"), loader)
    task = tb.SupervisedTask(Counting, splits, recipe=recipe_of_all())
    inputs, targets = next(iter(task.batches("train", 0, 0)))
    assert isinstance(inputs, transformers.BatchEncoding)
    assert "labels" not in inputs
    assert targets.shape == (8,)
    assert tb.train(task).cost.samples_backward == 2 * SAMPLES
    with pytest.raises(tb.TombolaError, match="cannot be put together"):
        tb.train(task_of(tokens))


def test_columns_of_texts_are_named():
    texts = datasets.Dataset.from_dict({"text": ["a"] * SAMPLES, "label": Y.tolist()})
    with pytest.raises(tb.TombolaError, match=r"texts under 'text'.*remove_columns\('text'\)"):
        tb.train(task_of(texts))


def _tokenizer(vocabulary):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return tokenizer
