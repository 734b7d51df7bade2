"""What of a user's own code and objects decides a run, and what does not."""

from __future__ import annotations

import collections
import decimal
import importlib
import logging
import os
import re
import subprocess
import sys
import threading
import types
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler, SubsetRandomSampler, TensorDataset, default_collate

import tombola as tb
from tombola.training import fingerprint, identity, task_identity
from tombola.training.task import with_recipe

HELPED = """
    import pkg.helpers
    from functools import partial, wraps
    from pkg import helpers as h

    def dotted(w): return pkg.helpers.shift(w)

    def relative(w):
        from . import helpers
        return helpers.shift(w)

    def relative_name(w):
        from .helpers import shift
        return shift(w)

    def inside(w):
        from pkg import helpers
        return helpers.shift(w)

    PART = partial(h.shift)
    def through_partial(w): return PART(w)

    def around(f):
        @wraps(f)
        def inner(w): return h.shift(f(w))
        return inner

    @around
    def decorated(w): return w

    class Slots:
        __slots__ = ("f",)
        def __init__(self): self.f = h.shift

    SLOTS = Slots()
    def through_slots(w): return SLOTS.f(w)
"""
WAYS = ("dotted", "relative", "relative_name", "inside", "through_partial", "decorated", "through_slots")


def test_a_helper_counts_whichever_way_it_is_reached(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "ways.py").write_text(re.sub(r"(?m)^ {4}", "", HELPED))

    def known(helper: str) -> dict[str, str]:
        (tmp_path / "pkg" / "helpers.py").write_text(f"def shift(w): return {helper}\n")
        for name in [name for name in sys.modules if name.partition(".")[0] == "pkg"]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()
        ways = importlib.import_module("pkg.ways")
        return {way: fingerprint(identity(getattr(ways, way))) for way in WAYS}

    before, again, after = known("w * 1"), known("w * 1"), known("w * 22")
    assert before == again
    assert [way for way in WAYS if before[way] == after[way]] == []


class Held:
    def __init__(self, value) -> None:
        self.value = value


def closed(value):
    def score(model, *args):
        return value

    return score


PAIRS = {
    "bytes": (b"a", b"b"),
    "range": (range(3), range(5)),
    "pattern": (re.compile("a"), re.compile("b")),
    "decimal": (decimal.Decimal(1), decimal.Decimal(2)),
    "deque": (collections.deque([1]), collections.deque([2])),
    "namespace": (types.SimpleNamespace(a=1), types.SimpleNamespace(a=2)),
    "number of NumPy": (np.float32(1), np.float32(2)),
    "array backwards": (np.arange(3)[::-1], np.arange(4)[::-1]),
    "array of texts": (np.array(["a"]), np.array(["b"])),
    "array of objects": (np.array(["a", None], object), np.array(["b", None], object)),
    "sparse": (torch.eye(2).to_sparse(), torch.ones(2, 2).to_sparse()),
    "partial": (partial(F.cross_entropy, label_smoothing=0.1), partial(F.cross_entropy, label_smoothing=0.2)),
    "torch's own": (torch.relu, torch.tanh),
    "NumPy's own": (np.exp, np.log),
    "a score": (tb.scores.Snip(batches=1), tb.scores.Snip(batches=4)),
    "a teacher": (nn.Linear(2, 2), nn.Linear(2, 2)),
    "a seed": (torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_what_objects_say_counts_as_a_setting_an_attribute_and_in_a_closure(pair):
    one, other = PAIRS[pair]
    for put in (lambda value: value, Held, closed):
        assert fingerprint(identity(put(one))) == fingerprint(identity(put(one)))
        assert fingerprint(identity(put(one))) != fingerprint(identity(put(other)))


def test_what_is_no_setting_has_an_identity_all_the_same(tmp_path):
    with (tmp_path / "file").open("w") as file:
        for value in (logging.getLogger("x"), threading.Lock(), file, (i for i in range(3)), np, sys.stdout):
            assert identity(Held(value)) == identity(Held(value))
            assert identity(closed(value)) == identity(closed(value))
    assert fingerprint(identity(Held(logging.getLogger("x")))) == fingerprint(identity(Held(logging.getLogger("y"))))


COUNTED = 0


def counting(model, *args):
    global COUNTED
    COUNTED += 1
    return {}


def test_what_a_function_counts_for_itself_renames_nothing():
    before = identity(counting)
    counting(None)
    assert identity(counting) == before


TYPED = """
import enum, typing
from tombola.training import fingerprint, identity
FUNCTIONS, KEYED = {print, len, lambda x: 1, lambda x: 2}, {len: 1, "a": {"p", "q", "r"}}
class Kind(enum.Enum):
    A = 1
class Called(typing.Protocol):
    def named(self): ...
class Score(Called):
    def __init__(self): self.kind, self.keyed = Kind.A, KEYED
    def __call__(self, model): return len(FUNCTIONS) * KEYED[len]
print(fingerprint(identity(Score())))
"""


@pytest.mark.slow
def test_code_that_is_typed_counts_and_no_set_or_address_does():
    def known(text: str, seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.check_output([sys.executable, "-c", text], env=environment, text=True)

    assert known(TYPED, "1") == known(TYPED, "2") != known(TYPED.replace(") * KEYED", ") + KEYED"), "1")


class Net(nn.Module):
    def __init__(self, act=F.relu, **held) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(4, 3), act
        vars(self).update(held)

    def forward(self, inputs):
        return self.act(self.layer(inputs))


def frozen() -> Net:
    net = Net()
    net.layer.weight.requires_grad_(False)
    return net


def hooked() -> Net:
    net = Net()
    net.register_forward_hook(lambda module, inputs, outputs: 2 * outputs)
    return net


def circular() -> Net:
    net = Net()
    net.above = [net]
    return net


PAIR = torch.zeros(6, 4), torch.arange(6) % 3


def known(task) -> str:
    return fingerprint(task_identity(task, 0, task.recipe, "float32"))


def of_network(make) -> str:
    return known(tb.SupervisedTask(make, {"train": PAIR, "test": PAIR}))


def test_what_a_networks_text_does_not_say_counts():
    makes = [
        *(Net, lambda: Net(F.gelu), lambda: Net(torch.relu), lambda: Net(lambda x: x), frozen, hooked, circular),
        *(lambda: Net(sizes=[1]), lambda: Net(sizes=[2]), lambda: Net(scale=torch.ones(1))),
        *(lambda: Net(options=types.SimpleNamespace(a=1)), lambda: Net(options=types.SimpleNamespace(a=2))),
        lambda: nn.TransformerEncoderLayer(4, 1, 4),
        lambda: nn.TransformerEncoderLayer(4, 1, 4, norm_first=True),
        lambda: nn.TransformerEncoderLayer(4, 1, 4, activation="gelu"),
    ]
    assert [of_network(make) for make in makes] == [of_network(make) for make in makes]
    assert len({of_network(make) for make in makes}) == len(makes)


def of_data(source) -> str:
    return known(tb.SupervisedTask(lambda: nn.Linear(4, 3), {"train": source, "validation": PAIR, "test": PAIR}))


class Samples(Dataset):
    def __init__(self, sample) -> None:
        self.sample = sample

    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: int):
        return self.sample, 1


class Times(TensorDataset):
    def __init__(self, factor: float) -> None:
        super().__init__(*PAIR)
        self.factor = factor

    def __getitem__(self, place):
        inputs, target = super().__getitem__(place)
        return inputs + self.factor, target


class Collated:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, samples):
        return default_collate(samples)


class Every(Sampler):
    def __iter__(self):
        return iter(range(6))

    def __len__(self):
        return 6


class EverySecond(Sampler):
    def __iter__(self):
        return iter(range(0, 6, 2))

    def __len__(self):
        return 3


EverySecond.__name__ = "Every"


def collated(factor: float, samples):
    return default_collate(samples)


def loader(**how) -> DataLoader:
    return DataLoader(TensorDataset(*PAIR), batch_size=2, **how)


def peaked(height: float) -> np.ndarray:
    array = np.zeros((40, 40))
    array[20, 20] = height
    return array


DATA = {
    "a partial that collates": lambda k: loader(collate_fn=partial(collated, k)),
    "an object that collates": lambda k: loader(collate_fn=Collated(k)),
    "a sampler's places": lambda k: loader(sampler=SubsetRandomSampler([0, k])),
    "a sampler's code": lambda k: loader(sampler=[None, Every(), EverySecond()][k]),
    "a loader's seed": lambda k: loader(shuffle=True, generator=torch.Generator().manual_seed(k)),
    "a data set of tensors that changes them": lambda k: DataLoader(Times(k)),
    "arrays": lambda k: DataLoader(Samples(peaked(k))),
    "objects": lambda k: DataLoader(Samples(Held(torch.tensor(k))), collate_fn=list),
    "words of a dict": lambda k: DataLoader(Samples({"ab"[k - 1]: torch.ones(2)})),
}


@pytest.mark.parametrize("what", DATA)
def test_all_that_gives_batches_counts(what):
    make = DATA[what]
    assert of_data(make(1)) == of_data(make(1)) != of_data(make(2))


class Own:
    """A task of one's own, whose later epochs have other batches."""

    recipe = tb.Recipe(epochs=1)

    def build(self, seed):
        torch.manual_seed(seed)
        return nn.Linear(4, 3)

    def batches(self, split, seed, epoch):
        return [PAIR] * self.times(epoch)

    def times(self, epoch):
        return 1 + epoch

    def forward(self, model, inputs):
        return model(inputs)

    def loss(self, outputs, targets):
        return F.cross_entropy(outputs, targets)

    def metric(self, outputs, targets):
        return (outputs.argmax(-1) == targets).float().mean()


class Longer(Own):
    def times(self, epoch):
        return 1 + 2 * epoch


def test_the_code_of_a_tasks_batches_counts_for_all_epochs():
    assert known(Own()) == known(Own()) != known(Longer())
    recipe = tb.Recipe(epochs=2)
    assert known(with_recipe(Own(), recipe)) != known(with_recipe(Longer(), recipe))
