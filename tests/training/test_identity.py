"""What a run is: every setting and all code that is not Tombola's own, and nothing else."""

from __future__ import annotations

import importlib
import linecache
import os
import subprocess
import sys
import textwrap
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import tombola as tb
from tombola.registry import FAMILIES, METHODS, SCORES, imported
from tombola.testing import toy_task
from tombola.training import DataWarning, fingerprint, identity, task_identity

CLASSES = {
    kind.__name__: kind
    for registry in (SCORES, FAMILIES)
    for entry in registry.own.values()
    if is_dataclass(kind := imported(entry.where))
}
OTHER = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v + 0.5, str: lambda v: f"{v}!"}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module `mine` of this text, and imports it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def written(text: str, name: str = "mine"):
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(text))
        for known in ("mine", "helpers"):
            sys.modules.pop(known, None)
        importlib.invalidate_caches()
        (tmp_path / "__pycache__").exists() and [own.unlink() for own in (tmp_path / "__pycache__").iterdir()]
        return importlib.import_module(name)

    yield written
    for known in ("mine", "helpers"):
        sys.modules.pop(known, None)


@pytest.mark.parametrize("name", CLASSES)
def test_every_field_counts_also_at_its_default(name):
    kind = CLASSES[name]
    usual = {own.name: own.default for own in fields(kind) if own.default is not MISSING and type(own.default) in OTHER}
    held = {own.name for own in fields(kind) if "later" not in own.metadata}
    try:
        described = identity(kind())
    except TypeError:
        pytest.skip("has no defaults")
    assert described.keys() - {"is"} == held
    for field, value in usual.items():
        changed = object.__new__(kind)
        for other in fields(kind):
            object.__setattr__(changed, other.name, getattr(kind(), other.name))
        object.__setattr__(changed, field, OTHER[type(value)](value))
        assert fingerprint(identity(changed)) != fingerprint(described), field


def test_a_default_that_is_changed_renames_what_has_it(monkeypatch):
    before = fingerprint(identity(tb.method("snip")))
    monkeypatch.setattr(tb.scores.Snip.__init__, "__defaults__", (7, *tb.scores.Snip.__init__.__defaults__[1:]))
    monkeypatch.setattr(tb.scores.Snip, fields(tb.scores.Snip)[0].name, 7)
    assert fingerprint(identity(tb.OneShot(score=tb.scores.Snip()))) != before


def test_a_version_that_is_raised_renames_what_has_it(monkeypatch):
    before = identity(tb.method("synflow"))
    monkeypatch.setitem(SCORES.own, "synflow", replace(SCORES.own["synflow"], version=2))
    after = identity(tb.method("synflow"))
    assert (before["score"]["is"], after["score"]["is"]) == ("synflow@1", "synflow@2")
    assert fingerprint(before) != fingerprint(after)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_of_tombola_is_known_by_a_name_that_survives_its_file(name):
    def kinds(value):
        if isinstance(value, dict):
            yield from [value["is"]] if "is" in value else []
            value = list(value.values())
        for part in value if isinstance(value, list) else ():
            yield from kinds(part)

    assert all("@" in kind for kind in kinds(identity(METHODS[name])))


SCORE = """
    import torch
    from dataclasses import dataclass
    from helpers import scale
    import helpers

    POWER = 2

    def own(model, batches=(), loss=None, **view):
        '''A score.'''
        return {name: scale(w.detach().abs()) ** POWER + helpers.shift(w) for name, w in model.named_parameters()}

    @dataclass(frozen=True)
    class Own:
        '''A score with a setting.'''
        gain: float = 1.0

        def __call__(self, model, batches=(), loss=None, **view):
            return {name: self.scaled(w) for name, w in model.named_parameters()}

        def scaled(self, w):
            names = [n for n in ("a", "b") if n in {"a", "c"}]
            return self.gain * w.detach().abs() * len(names)
"""
HELPERS = """
    def scale(w):
        return 3 * w

    def shift(w):
        return 0 * w
"""
EDITS = {
    "a constant": ("POWER = 2", "POWER = 3", HELPERS, True, False),
    "a helper": ("", "", HELPERS.replace("3 * w", "4 * w"), True, False),
    "a helper in a module": ("", "", HELPERS.replace("0 * w", "1 * w"), True, False),
    "the function": (".abs()) ** POWER", ".abs()) / POWER", HELPERS, True, False),
    "a method": ("self.gain * w", "self.gain + w", HELPERS, False, True),
    "what is nested": ('{"a", "c"}', '{"a", "d"}', HELPERS, False, True),
    "a comment": ("POWER = 2", "POWER = 2  # squared", HELPERS, False, False),
    "a docstring": ("A score", "My own score", HELPERS, False, False),
    "the layout": (
        "def own(model, batches=(), loss=None, **view)",
        "def own(\n    model,\n    batches=(),\n    loss=None, **view)",
        HELPERS,
        False,
        False,
    ),
    "an annotation": (
        "def scaled(self, w):",
        "def scaled(self, w: torch.Tensor) -> torch.Tensor:",
        HELPERS,
        False,
        False,
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_code_counts_with_its_helpers_and_without_its_looks(module, edit):
    module(HELPERS, "helpers")
    mine = module(SCORE)
    before = [identity(mine.own), identity(mine.Own())]
    old, new, helpers, function, kind = EDITS[edit]
    module(helpers, "helpers")
    mine = module(SCORE.replace(old, new) if old else SCORE)
    after = [identity(mine.own), identity(mine.Own())]
    assert [one != other for one, other in zip(before, after, strict=True)] == [function, kind]
    assert before[0]["is"] == "mine.own"


def test_lambdas_of_one_line_and_closures_are_told_apart(module):
    mine = module("""
        one, two = lambda x: x + 1, lambda x: x + 2
        again = lambda x: x + 1

        def made(k):
            def inner(x):
                return k * x
            return inner
    """)
    assert identity(mine.one) != identity(mine.two)
    assert identity(mine.one)["source"] == identity(mine.again)["source"]
    assert identity(mine.made(1)) != identity(mine.made(2))
    assert identity(mine.made(3)) == identity(mine.made(3))


def test_what_goes_in_a_circle_comes_to_an_end(module):
    mine = module("""
        def ping(n):
            return pong(n - 1) if n else STATE.total

        def pong(n):
            return ping(n - 1) if n else 0

        class State:
            def __init__(self):
                self.me, self.total = self, 3

            def call(self):
                return ping(STATE.total)

        STATE = State()
    """)
    assert identity(mine.ping) == identity(mine.ping)
    assert identity(mine.STATE) == identity(mine.STATE)


CELL = "def loss(outputs, targets):\n    return (outputs - targets).square().mean() if 'a' in {'a', 'b', 'c'} else 0\n"


def run_cell(text: str, name: str):
    """What a notebook does with a cell: its text is kept under a name that is no file."""
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    space: dict = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), space)
    return space["loss"]


def test_a_cell_of_a_notebook_that_is_run_again_is_what_it_was():
    first, again = run_cell(CELL, "<cell 1>"), run_cell(f"# anew\n\n{CELL}", "<cell 7>")
    other = run_cell(CELL.replace("square", "abs"), "<cell 8>")
    assert identity(first) == identity(again) != identity(other)


PROGRAM = """
import tombola as tb, torch
from torch import nn
from tombola.studies import Serial, digest

def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets) * (1 if "a" in {"a", "b", "c", "d"} else 2)

def build():
    return nn.Sequential(nn.Linear(4, 3))

torch.manual_seed(0)
data = {"train": (torch.randn(20, 4), torch.arange(20) % 3), "test": (torch.randn(6, 4), torch.arange(6) % 3)}
task = tb.SupervisedTask(build, data, loss=loss)
method = tb.method("synflow", prunable=tb.Prunable(exclude=("b",)))
print(digest(Serial().tasks.known(tb.RunSpec(task, method), torch.device("cpu"))[1]))
"""


@pytest.mark.slow  # The golden digests are pinned, and each run of the tests has another hash seed.
@pytest.mark.parametrize("typed", [False, True], ids=["in a file", "typed"])
def test_the_digest_of_a_run_is_the_same_under_every_hash_seed_and_number_of_threads(tmp_path, typed):
    (tmp_path / "program.py").write_text(PROGRAM)
    words = ["-c", PROGRAM] if typed else [str(tmp_path / "program.py")]
    digests = set()
    for seed, threads in (("0", "1"), ("1", "2"), ("2", "1"), ("3", "1"), ("random", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
        digests.add(subprocess.check_output([sys.executable, *words], env=environment, text=True).strip())
    assert len(digests) == 1


def known(task) -> str:
    return fingerprint(task_identity(task, 0, task.recipe, "float32"))


class Scaled(nn.Module):
    """A network with a number of its own, and none in its repr."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 3), scale

    def forward(self, inputs):
        return self.scale * self.layer(inputs)


def test_a_networks_forward_and_its_own_numbers_count(module):
    text = """
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(64, 5)

            def forward(self, inputs):
                return self.layer(inputs.flatten(1)) * 1.0
    """
    before = known(toy_task(module(text).Net))
    assert known(toy_task(module(text).Net)) == before
    assert known(toy_task(module(text.replace("* 1.0", "* 2.0")).Net)) != before
    assert known(toy_task(Scaled)) != known(toy_task(lambda: Scaled(2.0)))


def data(train, **how) -> tb.SupervisedTask:
    pair = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)
    return tb.SupervisedTask(lambda: nn.Linear(2, 2), {"train": train, "validation": pair, "test": pair}, **how)


class Listed(Dataset):
    def __init__(self, last: float) -> None:
        self.last = last

    def __len__(self) -> int:
        return 9

    def __getitem__(self, place: int):
        return torch.full((2,), self.last if place == 8 else float(place)), 1


class Streamed(IterableDataset):
    def __iter__(self):
        yield from ((torch.zeros(2), 1) for _ in range(8))


def test_data_count_with_all_of_them():
    def tensors(last: float, **loader):
        inputs = torch.zeros(9, 2)
        inputs[8] = last
        return data(DataLoader(TensorDataset(inputs, torch.zeros(9, dtype=torch.int64)), batch_size=4, **loader))

    assert tensors(0.0).data_digest == tensors(0.0).data_digest != tensors(1.0).data_digest
    assert tensors(0.0).data_digest != tensors(0.0, shuffle=True).data_digest
    assert tensors(0.0).data_digest != tensors(0.0, drop_last=True).data_digest
    assert data(DataLoader(Listed(0.0))).data_digest != data(DataLoader(Listed(1.0))).data_digest
    batches = [(torch.zeros(2, 2), torch.zeros(2)), (torch.zeros(2, 2), torch.zeros(2)), (torch.ones(2, 2), 0)]
    assert data(batches).data_digest != data([*batches[:2], (torch.zeros(2, 2), 0)]).data_digest


def test_data_that_only_come_by_are_known_by_their_first_batch_and_that_is_said():
    with pytest.warns(DataWarning, match="only the first batch identifies them"):
        digest = data(DataLoader(Streamed(), batch_size=4), steps_per_epoch=2).data_digest
    assert digest.startswith("first batch ")


@dataclass(frozen=True)
class Halved(tb.OneShot):
    """A method of one's own."""


def test_loss_metric_and_the_way_a_network_is_called_count():
    task = toy_task()
    assert known(task) == known(replace(task, labels={"data": "other"}))
    assert known(task) != known(replace(task, loss=nn.functional.multi_margin_loss))
    assert known(task) != known(replace(task, metric=lambda outputs, targets: outputs.mean()))
    assert known(task) != known(replace(task, forward=lambda model, inputs: model(inputs)))
    assert known(replace(task, loss=nn.CrossEntropyLoss())) != known(
        replace(task, loss=nn.CrossEntropyLoss(label_smoothing=0.1))
    )
    assert identity(Halved())["is"] != identity(tb.OneShot())["is"]


def test_one_number_is_one_number():
    assert fingerprint(identity(tb.Recipe(lr=1))) == fingerprint(identity(tb.Recipe(lr=1.0)))
    assert fingerprint({"a": True}) != fingerprint({"a": 1})
