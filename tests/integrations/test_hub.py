"""The Hub, by its own client against a stand-in of its HTTP interface: what is pushed comes back, and is data."""

from __future__ import annotations

import json
from collections.abc import Generator
from functools import partial
from pathlib import Path

import pytest
import torch
from hub_stand_in import Hub, stand_in
from torch import nn

import tombola as tb
from tombola import Mask, TombolaError, zoo
from tombola.cli import main
from tombola.integrations import hub as integration
from tombola.shrinking import Origin, preview, save_small, shrink
from tombola.tickets import Provenance, Ticket, Values, tensors_of

client = pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.filterwarnings("ignore:Use .content=")  # of the client


@pytest.fixture
def hub(monkeypatch) -> Generator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with stand_in() as own:
        yield own


def ticket() -> Ticket:
    model = nn.Linear(4, 3)
    mask = Mask.of({"weight": torch.arange(12).reshape(3, 4) % 2 == 0})
    whence = Provenance("imp", {"density": 0.5}, {"data": "digits | <b>"}, {"epochs": 3}, 0, version="0.1.0")
    return Ticket(mask, Values(tensors_of(model), "500it", 1.0), provenance=whence)


@pytest.fixture
def small(tmp_path) -> Path:
    model, example = zoo.model("lenet-300-100", (1, 8, 8), 10, 0.1)(), torch.ones(2, 1, 8, 8)
    units = tb.Channels().units(model, lambda own: own(example))
    kept = units.choose(tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1)
    mask = units.expand(kept, dict(model.named_parameters()))
    origin = Origin("tombola", "lenet-300-100", {"input_shape": (1, 8, 8), "classes": 10, "width": 0.1})
    forms = [{"name": "small", "parameters": 12, "bytes": 48, "flops": None, "metric": 0.9, "latency": {"1": 0.001}}]
    folder, facts = tmp_path / "small", {"forms": forms, "task": {"data": "digits"}}
    save_small(folder, shrink(model, mask, example=example), preview(model, mask, example), facts, origin=origin)
    return folder


def test_a_ticket_goes_there_and_comes_back(hub, tmp_path):
    own = ticket()
    words = {"licence": "mit", "author": "Ann *Onym*", "verdict": ["It wins: 91.2 % [a]."]}
    assert "/me/mine/commit/" in integration.push(own, "me/mine", private=True, endpoint=hub.endpoint, **words)
    assert hub.said["me/mine"]["visibility"] == "private"
    page = hub.files["me/mine"]["README.md"].decode()
    assert "license: mit" in page
    assert "By Ann \\*Onym\\*." in page
    assert "It wins: 91.2 % \\[a\\]." in page
    assert "| `task: data` | `digits / <b>` |" in page
    pulled = integration.pull("me/mine", tmp_path / "back", endpoint=hub.endpoint)
    assert (pulled.kind, pulled.revision) == ("ticket", hub.commit("me/mine"))
    assert Ticket.load(tmp_path / "back" / "ticket.safetensors").digest == own.digest
    with pytest.raises(TombolaError, match="is there already"):
        integration.pull("me/mine", tmp_path / "back", endpoint=hub.endpoint)


def test_a_smaller_network_comes_back_by_the_commands(hub, small, tmp_path, monkeypatch, capsys):
    for name in ("push", "pull"):
        monkeypatch.setattr(integration, name, partial(getattr(integration, name), endpoint=hub.endpoint))
    (small / "notes.txt").write_text("mine")
    assert main(["push", str(small), "me/small", "--license", "apache-2.0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["commit"].startswith(hub.endpoint)
    assert set(hub.files["me/small"]) == {"network.json", "weights.safetensors", "README.md"}
    assert "| `small` | 12 | 48 | – | 1 ms | – | 90.00% |" in hub.files["me/small"]["README.md"].decode()
    hub.files["me/small"] |= {"setup.py": b"import os", "network.onnx": b"x", "adapter_config.json": b"{}"}
    for _ in range(2):  # what is ours is replaced
        assert main(["pull", "me/small", "--out", str(tmp_path / "back"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["opens"] == f'tb.load_small("{tmp_path / "back"}")'
    assert {path.name for path in (tmp_path / "back").iterdir()} == {"network.json", "weights.safetensors", "README.md"}
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(tb.load_small(tmp_path / "back")(x), tb.load_small(small)(x))


def spoilt(files: dict[str, bytes], name: str, content: bytes) -> None:
    files[name] = content


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda files, _: files.pop("network.json"), "holds neither network.json nor ticket"),
        (lambda files, _: spoilt(files, "network.json", b"{"), "cannot read"),
        (lambda files, _: spoilt(files, "weights.safetensors", b"x" * 99), "cannot read"),
        (lambda _, sizes: sizes.update({"weights.safetensors": 2**60}), "more than it can have"),
        (lambda _, sizes: sizes.update({"network.json": None}), "does not say how large it is"),
        (
            lambda files, _: spoilt(
                files, "network.json", files["network.json"].replace(b'"tombola", "name"', b'"os", "name"')
            ),
            "there is no library 'os'",
        ),
    ],
)
def test_what_is_not_as_it_should_be_is_refused_and_nothing_is_written(hub, small, tmp_path, spoil, says):
    integration.push(small, "me/small", endpoint=hub.endpoint)
    spoil(hub.files["me/small"], hub.sizes)
    with pytest.raises(TombolaError, match=says):
        integration.pull("me/small", tmp_path / "back", endpoint=hub.endpoint)
    assert not (tmp_path / "back").exists()


def test_what_is_not_there_and_what_is_in_the_way_is_said_in_a_sentence(hub, small, tmp_path):
    with pytest.raises(TombolaError, match=r"did not take or give 'me/none': 404.*hf auth login"):
        integration.pull("me/none", tmp_path / "back", endpoint=hub.endpoint)
    with pytest.raises(TombolaError, match="did not take or give 'no name'"):
        integration.push(small, "no name", endpoint=hub.endpoint)
    with pytest.raises(TombolaError, match="cannot read the ticket"):
        integration.push(tmp_path / "nothing", "me/none", endpoint=hub.endpoint)
    integration.push(small, "me/small", endpoint=hub.endpoint)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("years of work")
    with pytest.raises(TombolaError, match="choose another"):
        integration.pull("me/small", tmp_path / "mine", endpoint=hub.endpoint)
    (small / "README.md").write_text("my own words")
    with pytest.raises(TombolaError, match=r"README\.md was not written by Tombola"):
        integration.pull("me/small", small, endpoint=hub.endpoint)
    assert (small / "README.md").read_text() == "my own words"
