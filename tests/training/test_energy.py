"""Energy and carbon in the ledger: they add up, outlast a kill, and ask for neither network nor files."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import tombola as tb
from killed import Kill
from tombola.cli import main
from tombola.studies import RunSpec, execute, search
from tombola.testing import toy_task
from tombola.training import Cost, Observer, Run, energy
from tombola.training.checkpoint import Checkpoint
from tombola.training.energy import Reading


@dataclass(frozen=True)
class Steady:
    """A meter that always reads 100 W on a grid of 0.4 kg a kWh."""

    country: str = "NIL"

    @contextmanager
    def reading(self) -> Generator[Reading]:
        reading = Reading()
        yield reading
        reading.power, reading.intensity = 0.1, 0.4


def priced(cost: Cost) -> bool:
    """Whether the energy is that of 100 W for all the seconds, and the carbon that of 0.4 kg a kWh."""
    energy = 0.1 * cost.seconds / 3600
    return (cost.energy, cost.carbon) == (pytest.approx(energy), pytest.approx(0.4 * energy))


@pytest.mark.parametrize("name", ["imp", "snip", "gem-miner", "network-slimming", "concrete-ticket-search"])
def test_all_seconds_of_a_search_are_metered(name):
    run, task = Run(meter=Steady()), toy_task(epochs=2)
    tb.find(task, tb.method(name, density=0.5), run=run)
    assert run.cost.seconds > 0
    assert priced(run.cost)
    assert priced(tb.train(task, run=Run(meter=Steady())).cost)


def test_without_a_meter_there_is_no_energy():
    cost = tb.train(toy_task(epochs=1)).cost
    assert (cost.energy, cost.carbon) == (0, 0)
    assert cost.seconds > 0


def test_costs_of_energy_add_up_and_memory_is_the_most():
    one, other = Cost(energy=1.0, carbon=0.5, step_memory=7), Cost(energy=2.0, carbon=0.25, step_memory=3)
    assert one + other == Cost(energy=3.0, carbon=0.75, step_memory=7)


def test_a_stage_killed_and_resumed_has_the_energy_of_all_its_seconds(tmp_path):
    task = toy_task(epochs=4)

    def run(*observers: Observer) -> Cost:
        whole = Run(folder=tmp_path, checkpoint_seconds=0.0, meter=Steady())
        return whole.stage("one", task, task.build(0), observers=observers).cost

    with pytest.raises(KeyboardInterrupt):
        run(Kill(16))
    time.sleep(0.1)
    resumed = run(Kill(0))
    assert resumed.samples_backward == 4 * 108
    assert priced(resumed)
    assert run(Kill(0)) == resumed


def test_checkpoints_without_meters_still_load(tmp_path):
    task, first = toy_task(epochs=1), Run(folder=tmp_path)
    first.stage("one", task, task.build(0))
    path = tmp_path / "stages" / "one.end.pt"
    saved = Checkpoint(path).load()
    for key in ("energy", "carbon", "step_memory"):
        del saved["cost"][key]
    Checkpoint(path).save(saved)
    second = Run(folder=tmp_path, meter=Steady())
    second.stage("one", task, task.build(0))
    assert second.cost == replace(first.cost, step_memory=0)


def test_a_meter_changes_no_settings_and_a_finished_run_stays_as_it_is(tmp_path):
    spec, store = RunSpec(toy_task(epochs=1), tb.method("snip", density=0.5)), tb.Store(tmp_path)
    plain, metered = tb.studies.Serial(), tb.studies.Serial(meter=Steady())
    ticket, folder = search(spec.task, spec.subject, 0, store, metered)
    assert ticket.provenance.cost["energy"] > 0
    assert search(spec.task, spec.subject, 0, store, plain)[1].path == folder.path
    (result,) = execute([spec], store, plain)
    assert (result.training["energy"], result.country) == (0, "")
    assert execute([spec], store, metered) == [result]
    (again,) = execute([replace(spec, seed=1)], store, metered)
    assert (again.country, again.training["energy"] > 0) == ("NIL", True)
    assert tb.studies.Result.of(json.loads(again.to_json())) == again


HOSTILE = "[codecarbon]\nemissions_endpoint = http://127.0.0.1:9\nsave_to_file = true\noutput_methods = csv,api\n"


@pytest.fixture
def unread() -> Generator[None]:
    """No tracker yet, as in a process that begins."""
    energy._tracker.cache_clear()
    yield
    energy._tracker.cache_clear()


def test_a_meter_writes_nothing_asks_nobody_and_leaves_no_thread(unread, tmp_path, monkeypatch, capfd):
    def refuse(*_):
        raise AssertionError("asked the network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    Path(".codecarbon.config").write_text(HOSTILE)
    before = set(threading.enumerate())
    run = Run(meter=tb.training.Meter("DEU"))
    tb.find(toy_task(epochs=2), tb.method("imp", density=0.5), run=run)
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=2)
    assert set(threading.enumerate()) <= before
    assert [path.name for path in tmp_path.rglob("*")] == [".codecarbon.config"]
    assert capfd.readouterr() == ("", "")
    watts = 3.6e6 * run.cost.energy / run.cost.seconds
    assert 1 < watts < 2000
    assert 0.1 < run.cost.carbon / run.cost.energy < 0.8


def test_the_grids_of_countries_differ():
    ratios = {}
    for country in ("POL", "NOR"):
        run = Run(meter=tb.training.Meter(country))
        tb.find(toy_task(epochs=1), tb.method("snip", density=0.5), run=run)
        ratios[country] = run.cost.carbon / run.cost.energy
    assert ratios["POL"] > 5 * ratios["NOR"]


@pytest.mark.parametrize("country", ["XYZ", "DE", "Germany"])
def test_an_unknown_country_is_refused(country, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tb.TombolaError, match=f"no country '{country}'; give an ISO code of three letters"):
        tb.training.Meter(country)
    assert main(["find", "snip", "--country", country]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_without_codecarbon_one_is_told_what_to_install(unread, monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(tb.TombolaError, match=r"codecarbon is not installed; pip install 'tombola\[energy\]'"):
        tb.training.Meter("DEU")


@pytest.mark.usefixtures("without_pictures")
def test_a_command_estimates_energy_and_carbon(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("--country", "DEU", "--recipe.epochs", "1", "--recipe.precision", "bf16")
    assert main(["check", "snip", "--density", "0.3", "--seeds", "2", "--out", "c", *small, "--json"]) == 0
    out, err = capsys.readouterr()
    assert (err, out.count("\n")) == ("", 1)
    (saved,) = json.loads(out)["savings"]
    assert (saved["subject"], saved["seeds"]) == ("snip", [0, 1])
    assert all(isinstance(share, float) for part in ("training", "net") for share in saved[part].values())
    assert saved["training"]["flops"] == saved["training"]["step_memory"] == 0
    assert saved["net"]["energy"] < saved["training"]["energy"]
    assert "the grid of DEU" in Path("c/report.html").read_text()
    assert main(["train", "dense", *small]) == 0
    assert "Wh and" in capsys.readouterr().out
