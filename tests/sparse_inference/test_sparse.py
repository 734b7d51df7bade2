"""Sparse copies: only where they are faster, written and read again, compiled safely, and refusals in plain words."""

from __future__ import annotations

import json
import re
import stat
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import tombola as tb
from tombola.cli import main
from tombola.shrinking import SparseProgram, SparsityWarning, load_sparse, save_sparse, sparse, sparse_copy, to_onnx
from tombola.sparse_inference import compiler, execution, sparse_network, trial


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(90, 70), nn.ReLU(), nn.Linear(70, 30), nn.Tanh(), nn.Linear(30, 5))


def masked(density: float = 0.1, make=network) -> tuple[nn.Module, tb.Mask]:
    model = make()
    mask = tb.select(tb.scores.random(model), density, scope="layerwise")
    with tb.attach(mask, model):
        return model.eval(), mask


@pytest.fixture
def clock(monkeypatch):
    """What takes how long, by the words of the measurement; sparse takes 1 second if nothing else is said."""
    seconds = {"dense": 2.0, "channels last": 2.0}

    def interleaved(calls):
        for call in calls.values():
            call()
        return {name: seconds.get(name, 1.0) for name in calls}

    for module in (trial, sparse_network):
        monkeypatch.setattr(module, "interleaved", interleaved)
    return seconds


def test_parts_that_gain_run_sparse_and_the_rest_stays(clock):
    model, mask = masked()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.randn(6, 3, 30)
    fast = sparse(model, mask, x)
    assert sum(isinstance(own, SparseProgram) for own in fast.modules()) == 2
    assert sum(isinstance(own, nn.Tanh) for own in fast.modules()) == 1
    for samples in (1, 6):
        with torch.no_grad():
            assert torch.allclose(fast(x[:samples]), model(x[:samples]), atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_neighbours_run_sparse_each_by_itself_where_their_part_does_not_gain(clock, monkeypatch):
    model, mask = masked(make=lambda: nn.Sequential(nn.Linear(9, 8), nn.Linear(8, 7), nn.Linear(7, 6)))
    tried = []

    def alone(part, *rest):
        tried.append(part.layers)
        return trial.faster_part(part, *rest) if len(part.layers) == 1 else None

    monkeypatch.setattr(sparse_network, "faster_part", alone)
    x = torch.randn(4, 9)
    fast = sparse(model, mask, x)
    assert tried == [("0", "1", "2"), ("0",), ("1",), ("2",)]
    assert sum(isinstance(own, SparseProgram) for own in fast.modules()) == 3
    with torch.no_grad():
        assert torch.allclose(fast(x), model(x), atol=1e-5)


def test_layers_of_what_cannot_be_traced_run_sparse_by_themselves(clock):
    class Looping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

        def forward(self, x, *, times):
            for _ in range(int(times.sum())):
                for cell in self.cells:
                    x = cell(x).tanh()
            return {"state": x}

    model, mask = masked(0.3, Looping)
    example = {"x": torch.randn(2, 5, 8), "times": torch.ones(2)}
    found = sparse_copy(model, mask, example)
    assert [timing.chosen for timing in found.timings] == ["sparse", "sparse"]
    assert found.network is not None
    with torch.no_grad():
        assert torch.allclose(found.network(**example)["state"], model(**example)["state"], atol=1e-5)


@pytest.mark.parametrize("example", [torch.randn(1, 90), None])
def test_a_network_that_gains_nothing_comes_back_as_it_is(clock, example):
    clock["dense"] = 1.05
    model, mask = masked(0.9)
    with pytest.warns(SparsityWarning, match="slower sparse, or hardly faster; the model is returned unchanged"):
        assert sparse(model, mask, example, batch=1) is model


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"CC": "no-such-compiler"}, "the compiler no-such-compiler is not there"),
        ({"CC": "false"}, "the compiler false failed"),
        ({"PATH": ""}, "there is no C compiler"),
    ],
)
def test_without_a_compiler_numba_runs_or_the_network_stays_dense(monkeypatch, tmp_path, change, says):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    _forget()
    try:
        assert says in compiler.why_not_compiled()
        model, mask = masked()
        monkeypatch.setattr(sparse_network, "find_spec", lambda name: None)
        with pytest.warns(SparsityWarning, match=f"{says}.*install gcc, or numba with pip install"):
            assert sparse(model, mask, torch.randn(2, 90)) is model
    finally:
        monkeypatch.undo()
        _forget()


def test_without_a_compiler_a_network_of_several_layers_runs_by_numba(clock, monkeypatch):
    for module in (sparse_network, trial, execution):
        monkeypatch.setattr(module, "why_not_compiled", lambda: "there is no C compiler")
    monkeypatch.delattr(execution, "kernels")
    monkeypatch.setattr(
        execution.numba_kernels,
        "run",
        lambda program, x: execution.DenseTwin(program, (6,))(torch.from_numpy(x)).numpy(),
    )
    model, mask = masked(make=lambda: nn.Sequential(nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 6)))
    found = sparse_copy(model, mask, torch.randn(4, 9))
    assert [timing.seconds for timing in found.timings] == [{"dense": 2.0, "sparse": 1.0}] * 2
    assert isinstance(found.network, SparseProgram)


def _forget() -> None:
    compiler.kernels.cache_clear()
    compiler.why_not_compiled.cache_clear()


def test_kernels_are_run_only_as_they_were_compiled_and_from_a_folder_of_ones_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiler, "FLAGS", ("-O0", *compiler.FLAGS[1:]))  # it is compiled sooner
    _forget()
    try:
        compiler.kernels()
        (library,) = tmp_path.rglob("*.so")
        sound = library.read_bytes()
        (tmp_path / "other").write_bytes(b"something else")
        (tmp_path / "other").replace(library)
        _forget()
        compiler.kernels()
        assert library.read_bytes() == sound
        library.parent.chmod(0o777)
        _forget()
        assert "others may write" in compiler.why_not_compiled()
        assert stat.S_IMODE(library.parent.stat().st_mode) == 0o777
    finally:
        monkeypatch.undo()
        _forget()


def whole(clock) -> tuple[SparseProgram, torch.Tensor]:
    model, mask = masked(make=lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)))
    x = torch.randn(3, 1, 6, 6)
    found = sparse(model, mask, x)
    assert isinstance(found, SparseProgram)
    return found, x


def test_a_file_needs_no_class_and_every_change_of_it_is_seen(clock, tmp_path):
    fast, x = whole(clock)
    path = tmp_path / "fast.safetensors"
    save_sparse(fast, path)
    assert torch.equal(load_sparse(path)(x), fast(x))
    data = path.read_bytes()
    for at in range(0, len(data), 37):
        damaged = bytearray(data)
        damaged[at] ^= 1
        path.write_bytes(bytes(damaged))
        with pytest.raises(tb.TombolaError, match="cannot read"):
            load_sparse(path)
    for part in (data[:100], b"", data.replace(b'\\"relu\\": true', b'\\"relu\\": 1234')):
        path.write_bytes(part)
        with pytest.raises(tb.TombolaError, match="cannot read"):
            load_sparse(path)


def test_a_network_that_is_sparse_in_part_has_no_file(clock, tmp_path):
    model, mask = masked()
    with pytest.raises(tb.TombolaError, match="only a network that runs sparse as a whole can be written"):
        save_sparse(sparse(model, mask, torch.randn(2, 90)), tmp_path / "fast.safetensors")


@pytest.mark.slow
def test_it_is_exported_with_its_zeros(clock, tmp_path):
    fast, x = whole(clock)
    assert to_onnx(fast, x, tmp_path / "fast.onnx") < 1e-4
    model, mask = masked()
    assert to_onnx(sparse(model, mask, torch.randn(6, 90)), torch.randn(6, 90), tmp_path / "part.onnx") < 1e-4


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m, k: sparse(m, k, batch=0), "batch is 0"),
        (lambda m, k: sparse(m.double(), k), "model.cpu().float()"),
        (lambda m, k: sparse(m, tb.Mask.full({"1.bias": m[1].bias})), "masks no linear layer, or convolutions with"),
    ],
)
def test_what_cannot_be_run_is_refused(call, says):
    with pytest.raises(tb.TombolaError, match=re.escape(says)):
        call(*masked())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda fast, x: fast(x.requires_grad_()), "without gradients"),
        (lambda fast, x: fast(x.half()), "in float32"),
        (lambda fast, x: fast(x[:, :, :5]), "made for samples of shape (1, 6, 6), and the input has the shape"),
        (lambda fast, x: fast.train()(x), "for inference; call .eval()"),
    ],
)
def test_what_is_no_input_is_refused(clock, call, says):
    with pytest.raises(tb.TombolaError, match=re.escape(says)):
        call(*whole(clock))


def test_the_command_writes_it_where_it_is_faster(clock, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--data", "digits", "--width", "0.1", "--recipe.epochs", "1", "--json"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["find", "random", "--density", "0.1", *words, "--out", "t"]) == 0
        assert main(["shrink", "t/ticket.safetensors", "--to", "sparse", "--out", "small", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [layer["chosen"] for layer in told["layers"]] == ["sparse"] * 3
    assert load_sparse(Path(told["sparse"])).inputs == (1, 8, 8)
