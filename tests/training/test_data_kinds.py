"""What people give as data: arrays, data sets, streams, and batches of every shape."""

from __future__ import annotations

from collections import UserDict, namedtuple
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import tombola as tb
from tombola.training import DataWarning, MemoryBatches, train_samples

SAMPLES = 48
X = torch.randn(SAMPLES, 8, generator=torch.Generator().manual_seed(0))
Y = (X @ torch.randn(8, 3, generator=torch.Generator().manual_seed(1))).argmax(1)
Image = namedtuple("Image", "image label")
Weighted = namedtuple("Weighted", "x weight label")


@dataclass
class Record:
    x: Tensor
    y: Tensor


class Indexed(Dataset):
    def __init__(self, sample):
        self.sample = sample

    def __len__(self):
        return SAMPLES

    def __getitem__(self, place):
        return self.sample(place)


class Rows:
    """Samples as those of Hugging Face's data sets: dicts of lists and numbers."""

    column_names = ("x", "label")

    def __len__(self):
        return SAMPLES

    def __iter__(self):
        return (self[place] for place in range(SAMPLES))

    def __getitem__(self, place):
        return {"x": X[place].tolist(), "label": int(Y[place])}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(TensorDataset(X, Y))


class Named(nn.Sequential):
    """Takes `x`, and a weight of it."""

    def forward(self, x, weight=1.0):
        return super().forward(x * weight)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRU(8, 12), nn.Linear(12, 3)

    def forward(self, sequences: PackedSequence):
        return self.head(self.cell(sequences)[1][-1])


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def named() -> nn.Module:
    return Named(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def loader(sample, **how) -> DataLoader:
    return DataLoader(Indexed(sample), 16, **how)


def batches(make) -> list:
    return [make(slice(start, start + 16)) for start in range(0, SAMPLES, 16)]


def together(samples) -> UserDict:
    return UserDict(x=torch.stack([x for x, _ in samples]), labels=torch.stack([y for _, y in samples]))


def packed(samples):
    return pack_sequence([x.expand(3, 8) for x, _ in samples]), torch.stack([y for _, y in samples])


def stream():
    yield from batches(lambda part: (X[part], Y[part]))


def of_part(part):
    """A loss and a metric of targets that are a nest."""
    return {
        "loss": lambda outputs, targets: F.cross_entropy(outputs, part(targets)),
        "metric": lambda outputs, targets: tb.training.accuracy(outputs, part(targets)),
    }


PAIR = lambda place: (X[place], Y[place])  # noqa: E731
STEPS = {"steps_per_epoch": 3}
KINDS = {
    "pairs": (mlp, lambda: loader(PAIR), {}),
    "a dict": (named, lambda: loader(lambda n: {"x": X[n], "labels": Y[n]}), {}),
    "a dict with another key": (named, lambda: loader(lambda n: {"x": X[n], "kind": Y[n]}), {"target": "kind"}),
    "a UserDict": (named, lambda: loader(PAIR, collate_fn=together), {}),
    "a triple": (named, lambda: loader(lambda n: (X[n], X[n].abs(), Y[n])), {"target": -1}),
    "a named tuple": (mlp, lambda: loader(lambda n: Image(X[n], Y[n])), {}),
    "a named tuple of three": (named, lambda: loader(lambda n: Weighted(X[n], X[n].abs(), Y[n])), {}),
    "a dataclass": (mlp, lambda: batches(lambda part: Record(X[part], Y[part])), {}),
    "packed sequences": (Recurrent, lambda: loader(PAIR, collate_fn=packed), {}),
    "batches of arrays": (mlp, lambda: batches(lambda n: (X[n].double().numpy(), Y[n].int().numpy())), {}),
    "samples of arrays": (mlp, lambda: Indexed(lambda n: (X[n].double().numpy(), np.int16(Y[n]))), {}),
    "arrays": (mlp, lambda: (X.double().numpy(), Y.numpy().astype(np.uint8)), {}),
    "lists of numbers": (mlp, lambda: (X.tolist(), Y.tolist()), {}),
    "a dict of tensors": (named, lambda: {"x": X, "labels": Y}, {}),
    "a list of samples": (mlp, lambda: [(x, int(y)) for x, y in zip(X, Y, strict=True)], {}),
    "a data set": (mlp, lambda: Indexed(PAIR), {}),
    "a part of tensors": (mlp, lambda: Subset(TensorDataset(X, Y), range(SAMPLES)), {}),
    "rows": (named, Rows, {}),
    "a stream": (mlp, lambda: DataLoader(Stream(), 16), STEPS),
    "a stream of samples": (mlp, Stream, STEPS),
    "a function": (mlp, lambda: stream, STEPS),
    "targets in a dict": (mlp, lambda: (X, {"kind": Y}), of_part(lambda targets: targets["kind"])),
    "targets in a tuple": (mlp, lambda: loader(lambda n: (X[n], (Y[n], Y[n]))), of_part(lambda targets: targets[1])),
}


def task_of(kind: str) -> tb.SupervisedTask:
    model, data, how = KINDS[kind]
    recipe = tb.Recipe(epochs=1, lr=0.05, batch=16, precision="float32")
    return tb.SupervisedTask(model, {split: data() for split in ("train", "validation", "test")}, recipe=recipe, **how)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_data_trains_as_the_same_tensors_do(kind):
    task = task_of(kind)
    trained = tb.train(task, seed=1)
    assert trained.cost.samples_backward == train_samples(task.batches("train", 0, 0)) == SAMPLES
    assert trained.cost.dense_epochs == 1.0
    seen = [(inputs, targets) for inputs, targets in task.batches("test", 0, 0)]
    assert sum(map(tb.scores.batch_size, seen)) == SAMPLES
    assert tb.find(task, tb.OneShot(density=0.5, score=tb.scores.snip)).density == pytest.approx(0.5, abs=0.02)
    order = {"pairs", "a dict", "a named tuple", "a dataclass", "batches of arrays", "a stream", "a function"}
    if kind in order:  # all of them in the order of their samples
        reference = replace(task_of("pairs"), data={split: batches(PAIR) for split in ("train", "validation", "test")})
        expected = tb.train(reference, seed=1).model
        pairs = zip(trained.model.parameters(), expected.parameters(), strict=True)
        assert all(torch.equal(own, other) for own, other in pairs)


@pytest.mark.filterwarnings("ignore::tombola.training.DataWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_digest_of_its_own_content(kind):
    task, again = task_of(kind), task_of(kind)
    assert task.data_digest == again.data_digest
    others = {split: batches(lambda part: (X[part] + 1, Y[part])) for split in ("train", "validation", "test")}
    assert task.data_digest != tb.SupervisedTask(mlp, others).data_digest


METHODS = {
    "snip": tb.OneShot(density=0.5, score=tb.scores.snip),
    "grasp": tb.OneShot(density=0.5, score=tb.scores.grasp),
    "synflow": tb.OneShot(density=0.5, score=tb.scores.synflow),
    "prospr": tb.OneShot(density=0.5, score=tb.scores.prospr),
    "imp": tb.Iterative(density=0.5),
    "edge-popup": tb.methods.EdgePopup(density=0.5),
    "gem-miner": tb.GemMiner(density=0.5),
    "rigl": tb.methods.RigL(density=0.5, every="1it"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_each_method_takes_each_kind_or_refuses_it(kind, method):
    if (kind, method) == ("packed sequences", "synflow"):
        with pytest.raises(tb.TombolaError, match="SynFlow needs an all-ones input"):
            tb.find(task_of(kind), METHODS[method])
    else:
        assert tb.find(task_of(kind), METHODS[method]).density == pytest.approx(0.5, abs=0.02)


REFUSED = {
    "a dict without a target": (
        named,
        lambda: loader(lambda n: {"x": X[n], "kind": Y[n]}),
        {},
        "a dict of x, kind; say",
    ),
    "two targets": (named, lambda: loader(lambda n: {"x": X[n], "y": Y[n], "label": Y[n]}), {}, "target='label'"),
    "a key that is not there": (named, lambda: {"x": X, "y": Y}, {"target": "labels"}, "of 'train'.* without 'labels'"),
    "a triple": (named, lambda: loader(lambda n: (X[n], X[n], Y[n])), {}, "a batch is a list of 3; .*target=-1"),
    "tensors without targets": (mlp, lambda: DataLoader(X, 16), {}, r"one Tensor of shape \(16, 8\)"),
    "one of a pair": (mlp, lambda: DataLoader(TensorDataset(X), 16), {}, "a list of 1; let the data give pairs"),
    "another argument": (mlp, lambda: loader(lambda n: {"z": X[n], "y": Y[n]}), {}, "a dict of z, but the network's"),
    "texts": (mlp, lambda: loader(lambda n: ("a", Y[n])), {}, "without tensors"),
    "rows of texts": (named, lambda: Indexed(lambda n: {"x": "a", "label": 1}), {}, "texts under 'x'"),
    "samples of other shapes": (mlp, lambda: Indexed(lambda n: (X[n, : 5 + n % 3], Y[n])), {}, "collate_fn"),
    "no length": (mlp, lambda: DataLoader(Stream(), 16), {}, r"no length; .*steps_per_epoch=100"),
    "a function without steps": (mlp, lambda: stream, {}, "no length"),
    "a generator": (mlp, stream, STEPS, "'train' are a generator, which can be read only once"),
    "too many steps": (mlp, lambda: loader(PAIR), {"steps_per_epoch": 4}, "steps_per_epoch is 4, but .* has 3 batches"),
    "a short stream": (
        mlp,
        lambda: Stream(),
        {"steps_per_epoch": 4},
        "gave 3 and not 4 batches, .* epoch 1",
    ),
    "no steps": (mlp, lambda: loader(PAIR), {"steps_per_epoch": 0}, "steps_per_epoch is 0"),
    "steps of samples": (mlp, lambda: (X, Y), STEPS, "leave out steps_per_epoch"),
    "words": (mlp, lambda: "train.csv", {}, "the data of 'train' are a str"),
    "two batches as a tuple": (mlp, lambda: ((X, Y), (X, Y)), {}, "may be a pair .* or two batches"),
    "an array of texts": (mlp, lambda: (np.array(["a"] * SAMPLES), Y), {}, "of which there is no tensor"),
    "no batch": (mlp, list, {}, "'train' is empty"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_in_a_sentence(kind):
    model, data, how, says = REFUSED[kind]
    with pytest.raises(tb.TombolaError, match=says) as refused:
        splits = dict.fromkeys(("train", "validation", "test"), data())
        tb.train(tb.SupervisedTask(model, splits, recipe=tb.Recipe(epochs=1, batch=16), **how))
    assert "\n" not in str(refused.value)


def test_a_data_set_gives_the_batches_that_its_tensors_give():
    recipe = tb.Recipe(epochs=1, batch=16, drop_last=True)
    one, other = (
        tb.SupervisedTask(mlp, {"train": train, "test": (X, Y)}, recipe=recipe) for train in ((X, Y), Indexed(PAIR))
    )
    assert isinstance(one.batches("train", 0, 0), MemoryBatches)
    for split in ("train", "validation"):
        pairs = zip(one.batches(split, 3, 1), other.batches(split, 3, 1), strict=True)
        assert all(torch.equal(x, z) and torch.equal(y, t) for (x, y), (z, t) in pairs)


def test_numbers_get_the_types_that_networks_take():
    double = X.double().numpy(), Y.numpy().astype(np.uint8)
    (inputs, targets), *_ = tb.SupervisedTask(mlp, {"train": double, "test": double}).batches("test", 0, 0)
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    task = tb.SupervisedTask(lambda: mlp().double(), {"train": double, "test": (X.double(), Y.int())})
    (inputs, targets), *_ = task.batches("test", 0, 0)
    assert (inputs.dtype, targets.dtype) == (torch.float64, torch.int64)


def test_a_stream_is_counted_by_the_pass_that_trains():
    passes = []

    def counted():
        passes.append(1)
        return stream()

    data = {"train": counted, "validation": (X, Y), "test": (X, Y)}
    task = tb.SupervisedTask(mlp, data, recipe=tb.Recipe(epochs=2), steps_per_epoch=3)
    cost = tb.train(task).cost
    assert (cost.samples_backward, cost.dense_epochs) == (2 * SAMPLES, 2.0)
    assert len(passes) == 2 + 2  # the first batch, before training and to count its FLOPs, and two epochs


def test_what_no_pass_reads_is_told_once():
    data = {"train": stream, "validation": (X, Y), "test": (X, Y)}
    task = tb.SupervisedTask(mlp, data, recipe=tb.Recipe(epochs=3), steps_per_epoch=2)
    with pytest.warns(DataWarning, match="reads the same 2 batches") as told:
        tb.train(task)
    assert len([each for each in told if each.category is DataWarning]) == 1


def test_scores_take_batches_of_all_shapes_and_refuse_a_data_set():
    model = named()
    scores = tb.scores.snip(model, [(X, Y)], F.cross_entropy)
    for batch in ({"x": X, "labels": Y}, UserDict(x=X, y=Y), Image(X, Y), (X.numpy(), Y.int().numpy())):
        other = tb.scores.snip(model, [batch], F.cross_entropy)
        assert all(torch.equal(score, other[name]) for name, score in scores.items())
    for wrong in (TensorDataset(X, Y), Stream(), {"x": X, "y": Y}, X):
        with pytest.raises(tb.TombolaError, match=r"DataLoader\(dataset, batch_size=128\)"):
            tb.scores.snip(model, wrong, F.cross_entropy)


class Own:
    """A task of one's own."""

    recipe = tb.Recipe(epochs=1)

    def __init__(self, *batches):
        self.given = batches

    def batches(self, split, seed, epoch):
        return list(self.given)

    def build(self, seed):
        torch.manual_seed(seed)
        return mlp()

    forward = staticmethod(tb.scores.forward)
    loss = staticmethod(F.cross_entropy)
    metric = staticmethod(tb.training.accuracy)


def test_a_task_of_ones_own_is_read_by_the_same_rule():
    assert tb.train(Own((X.numpy(), Y.int().numpy()))).cost.samples_backward == SAMPLES
    with pytest.raises(tb.TombolaError, match="a batch is a tuple of 3"):
        tb.train(Own((X, X, Y)))
    with pytest.raises(tb.TombolaError, match="no batch"):
        tb.train(Own())
