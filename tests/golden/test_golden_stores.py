"""Tickets, finished studies and killed runs that commit 3f24205 wrote are read, and gone on with."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pinned
import pytest
import small
import torch
import world

import tombola as tb

TICKETS = json.loads((pinned.DATA / "tickets.json").read_text())
TOLD = json.loads((pinned.DATA / "stores.json").read_text())


def _run(words: Sequence[str]) -> int:
    """Run a command; what it warns of, as of results by another version of the source, it says itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return world.command(words)


def _extract(name: str, folder: Path) -> None:
    with zipfile.ZipFile(pinned.DATA / "stores" / f"{name}.zip") as file:
        file.extractall(folder)


def _results(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob("*/result.json")}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", TICKETS)
def test_an_old_ticket_says_what_it_said(name, tmp_path):
    ticket = tb.Ticket.load(pinned.ticket_file(name))
    assert json.loads(json.dumps(pinned.content(ticket))) == TICKETS[name]
    ticket.save(tmp_path / "again.safetensors")
    assert tb.Ticket.load(tmp_path / "again.safetensors") == ticket


@pytest.mark.parametrize(("network", "name"), pinned.TICKETS)
def test_an_old_ticket_fits_the_network_that_it_was_found_on(network, name):
    ticket = tb.Ticket.load(pinned.ticket_file(f"{network}-{name}"))
    model = small.task(network).build(ticket.provenance.seed)
    ticket.put_into(model)
    assert all(mask.shape == model.get_parameter(own).shape for own, mask in ticket.mask.items())


def test_the_results_of_an_old_study_are_read(here):
    _extract("study", here)
    results = tb.Store(here / "study").results()
    assert sorted(own.digest for own in results) == sorted(_results(here / "study"))
    assert all(own.history and own.training["flops"] for own in results)


def test_an_old_study_is_not_repeated(here, capsys):
    _extract("study", here)
    before = _results(here / "study")
    tickets = {path: path.read_bytes() for path in here.rglob("*.safetensors")}
    with pinned.steps_counted() as steps, world.without_report():
        assert _run(pinned.STUDY) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == len(before) == 18
    assert steps == [0]
    assert _results(here / "study") == before
    assert {path: path.read_bytes() for path in here.rglob("*.safetensors")} == tickets


@pytest.mark.parametrize("name", pinned.KILLED)
def test_an_old_killed_run_ends_as_if_undisturbed(name, here, capsys):
    """Its checkpoints have no digest, so that they are set aside and their stages done again."""
    own, expected = pinned.KILLED[name], dict(TOLD[name])
    expected.pop("left")
    _extract(name, here)
    assert _run([*own.words, "--out", "killed"]) == 0
    assert "is damaged, or of another version; it stands aside" in capsys.readouterr().err
    near = max(own.near, 1e-6)  # Of the epochs' losses, which are single precision's.
    pinned.check_same(pinned.outcome(here / "killed"), expected, near)
    whole = pinned.DATA / "stores" / f"{name}.safetensors"
    if whole.exists():
        _check_same_ticket(tb.Ticket.load(here / "killed" / "ticket.safetensors"), tb.Ticket.load(whole), own.near)


def _check_same_ticket(found: tb.Ticket, before: tb.Ticket, near: float) -> None:
    assert found.mask == before.mask
    assert (found.held, found.recipe, found.removed) == (before.held, before.recipe, before.removed)
    if not isinstance(before.start, tb.tickets.Values):
        assert found.start == before.start
        return
    assert isinstance(found.start, tb.tickets.Values)
    assert (found.start.what, found.start.epochs_spent) == (before.start.what, before.start.epochs_spent)
    for name, tensor in before.start.tensors.items():
        torch.testing.assert_close(found.start.tensors[name], tensor, rtol=near, atol=near)
