"""Studies in files: what they say, who carries them out, what fails in them, and what is listed afterwards."""

from __future__ import annotations

import builtins
import csv
import errno
import io
import json
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import tombola as tb
from tombola.cli import main
from tombola.files import held
from tombola.studies import (
    PAUSE,
    PLAN,
    STOP,
    Processes,
    Store,
    StudyFile,
    WorkOrder,
    resources,
    rows_of,
    watchdog,
    work_as_told,
    worker,
)

FILE = """
title = "Small"
seeds = 1
controls = ["shuffle"]

[[tasks]]
data = "digits"
width = 0.1
recipe = { epochs = 1, batch = 256 }

[[methods]]
method = "snip"
densities = [0.5, 0.2]
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker, "IDLE", 0.01)
    monkeypatch.setattr(watchdog, "LOOK", 0.01)
    return tmp_path


def planned(folder: Path, text: str = FILE, **how) -> WorkOrder:
    folder.mkdir(exist_ok=True)
    (folder / PLAN).write_text(text)
    return WorkOrder(str(folder), device="cpu", **how)


def told(order: WorkOrder) -> list[tuple]:
    """What all runs of a study came to."""
    rows = rows_of(Store(Path(order.study)).results())
    return sorted((row["run"], row["metric"], row["loss"], row["together"]) for row in rows)


def modules(folder: Path, **sources: str) -> None:
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
        sys.modules.pop(name, None)


def test_a_file_says_tasks_times_recipes_methods_and_sizes(here):
    (here / "a.toml").write_text(FILE + "[[recipes]]\nlr = 0.1\n[[recipes]]\nlr = 0.2\n")
    file = StudyFile.read(here / "a.toml")
    assert [(own.width, own.recipe.epochs, own.recipe.lr) for own in file.options()] == [(0.1, 1, 0.1), (0.1, 1, 0.2)]
    (first, _) = file.grids()
    assert [(label, method.density) for label, method in first.subjects] == [("snip", 0.5), ("snip", 0.2)]


@pytest.mark.parametrize(
    ("said", "instead", "words"),
    [
        ("seeds = 1", "seed = 1", r"a.toml: there is no entry 'seed'; did you mean 'seeds'"),
        ("seeds = 1", "seeds = [2, 2]", "different numbers from 0"),
        ("width", "widht", r"no entry of tasks\[0\] 'widht'; did you mean 'width'"),
        ("epochs = 1", "epochs = -1", r"tasks\[0\].recipe: the recipe's epochs is -1"),
        ("[0.5, 0.2]", "0.5", r"methods\[0\]: Expected `array`"),
        ('"shuffle"', '"shufle"', "no control 'shufle'"),
        ("[[tasks]]", "[[tasks", "is no TOML .*line 6"),
        ('"snip"', '"snip"\nsettings = { round = 3 }', "no setting of snip 'round'; did you mean 'rounds'"),
    ],
)
def test_what_no_study_can_say_is_refused_with_its_place(here, said, instead, words):
    (here / "a.toml").write_text(FILE.replace(said, instead))
    with pytest.raises(tb.TombolaError, match=words):
        StudyFile.read(here / "a.toml").grids()


def test_a_run_that_another_process_holds_is_passed_over_and_taken_when_it_lets_go(here):
    order = planned(here / "one")
    work_as_told(order)
    other = planned(here / "two")
    agenda = other.agenda()
    search = agenda.known_if_finished()[0]
    done = []

    def note(run, outcome):
        done.append(run.folder.path.name)
        if len(done) == 1:
            hold.__exit__(None, None, None)

    hold = held(search.folder.path)
    hold.__enter__()
    assert other.worker(agenda, note).work() == ""
    assert done[0] != search.folder.path.name
    assert search.folder.path.name in done
    assert told(other) == told(order)


def test_pieces_are_the_same_whatever_is_finished(here):
    order = planned(here / "study")
    agenda = order.agenda()
    for piece in agenda.pieces():
        tb.studies.carry_out(piece)
    (chunk,) = agenda.pieces()
    assert len(chunk.runs) == 5
    tb.studies.execute([chunk.runs[0].spec], agenda.engine.store, agenda.engine.executor)
    (again,) = order.agenda().pieces()
    assert [run.folder.path for run in again.runs] == [run.folder.path for run in chunk.runs]


def test_until_it_is_decided_a_file_comes_to_what_one_call_comes_to_whoever_works(here, capsys):
    text = FILE.replace("seeds = 1", 'seeds = 4\nuntil = "decided"\nequal_cost = true').replace("[0.5, 0.2]", "[0.5]")
    text = text.replace("{ epochs", '{ precision = "auto", epochs')  # a run's task is another one once it is resolved
    text += '[[methods]]\nmethod = "random"\ndensities = [0.5]\n'
    order = planned(here / "study", text)
    (grid,) = order.agenda().grids
    whole = tb.compare(
        grid.plan.task,
        dict(grid.subjects),
        seeds=4,
        until="decided",
        controls=grid.plan.controls,
        equal_cost=True,
        engine=tb.studies.Engine(Store(here / "whole"), order.agenda().engine.executor),
    )
    first, second = order.agenda(), order.agenda()
    for piece in first.pieces()[:3]:
        tb.studies.carry_out(piece)
    assert order.worker(second).work() == order.worker(first).work() == ""
    (study,) = second.studies()
    assert [own.ended for own in study.verdicts] == [own.ended for own in whole.verdicts]
    assert [own.means for own in study.verdicts] == [own.means for own in whole.verdicts]
    assert [own.summary for own in study.rankings] == [own.summary for own in whole.rankings]
    assert any(own.equal_cost for own in study.rankings)
    assert not second.pieces()
    assert len(second.stages(0)[0].seeds) == 3
    assert main(["study", "study", "--dry-run", "--device", "cpu"]) == 0
    assert "up to 4" in capsys.readouterr().out


def test_what_raises_is_kept_and_shown_and_the_rest_goes_on_and_it_is_tried_again(here, capsys, monkeypatch):
    modules(
        here,
        bad="def score(model, batches=(), loss=None, **own):\n    print('seen')\n    raise RuntimeError('no luck')\n",
    )
    text = FILE.replace('"snip"', '"bad:score"').replace("[0.5, 0.2]", "[0.5]")
    (here / "a.toml").write_text(text + '\n[[methods]]\nmethod = "random"\ndensities = [0.5]\n')
    words = ["study", "a.toml", "--json", "--device", "cpu", "--threads", "1"]
    assert main(words) == 3
    answer = json.loads(capsys.readouterr().out)
    (failed,) = answer["failed"]
    assert (failed["kind"], failed["reason"]) == ("error", "RuntimeError: no luck")
    assert [own["subject"] for own in answer["reports"][0]["verdicts"]] == ["random"]
    log = (here / "runs" / "a" / failed["run"] / "tombola.log").read_text()
    assert "seen" in log
    assert "Traceback" in log
    monkeypatch.setattr("tombola.cli.study_output.written", lambda study, *_: (study, Path("seen above")))
    assert main(words) == 3
    assert json.loads(capsys.readouterr().out)["retried"] == 0
    assert log.count("no luck") == (here / "runs" / "a" / failed["run"] / "tombola.log").read_text().count("no luck")
    assert main([*words, "--retry", "failed"]) == 3
    assert json.loads(capsys.readouterr().out)["retried"] == 1
    assert log.count("no luck") < (here / "runs" / "a" / failed["run"] / "tombola.log").read_text().count("no luck")


def test_what_hangs_is_ended_at_its_limit(here):
    modules(here, slow="import time\ndef score(model, batches=(), loss=None, **own):\n    time.sleep(60)\n")
    started = time.monotonic()
    tally = work_as_told(planned(here / "study", FILE.replace('"snip"', '"slow:score"'), limit=0.2, trust=True))
    assert time.monotonic() - started < 20
    assert tally.failed == 2
    failures = [own for _, own in WorkOrder(str(here / "study"), device="cpu", trust=True).agenda().failures()]
    assert failures == []  # a new agenda has yet to look
    agenda = WorkOrder(str(here / "study"), device="cpu", trust=True).agenda()
    agenda.pieces()
    assert [own.kind for _, own in agenda.failures()] == ["time", "time"]


def test_what_needs_more_memory_than_there_is_is_not_begun(here, monkeypatch):
    monkeypatch.setattr(resources, "memory_of", lambda device: 2**20)
    order = planned(here / "study")
    assert work_as_told(order).failed == 2
    agenda = order.agenda()
    agenda.pieces()
    assert {(own.kind, own.reason.startswith("it needs about")) for _, own in agenda.failures()} == {("memory", True)}
    assert resources.workers_that_fit(8, 2**19, torch.device("cpu")) == 2


def test_workers_stop_when_they_are_told_and_when_the_time_is_up(here, capsys):
    order = planned(here / "study")
    assert main(["study", "study", "--stop"]) == 0
    assert (here / "study" / STOP).exists()
    assert work_as_told(order).why == "stop"
    (here / "study" / STOP).unlink()
    assert work_as_told(replace(order, until=time.time() - 1)).why == "time"
    assert "end at once" in capsys.readouterr().out


def test_a_paused_worker_begins_nothing_until_the_study_is_started_again(here):
    order = planned(here / "study")
    assert main(["study", "study", "--pause"]) == 0
    happened = []

    def let_go():
        happened.append(("let go", len(list((here / "study").glob("*/*")))))
        (here / "study" / PAUSE).unlink()

    threading.Timer(0.3, let_go).start()
    order.worker(order.agenda(), lambda run, outcome: happened.append(("done", run.is_search))).work()
    assert happened[0] == ("let go", 0)
    assert len(happened) == 1 + 2 + 5


def test_work_that_does_not_react_is_on_record_before_its_process_is_ended(here, monkeypatch):
    """The end of the process is a file here, for which the work waits that no exception ends."""
    deaf = (
        "import time\nfrom pathlib import Path\n"
        "def score(model, batches=(), loss=None, **own):\n"
        "    while not Path('ended').exists():\n"
        "        try:\n            time.sleep(0.01)\n"
        "        except BaseException:\n            pass\n"
        "    raise KeyboardInterrupt\n"
    )
    modules(here, deaf=deaf)
    monkeypatch.setattr(watchdog, "GRACE", 0.1)
    monkeypatch.setattr(watchdog, "_end_process", lambda is_own: Path("ended").touch())
    with pytest.raises(KeyboardInterrupt):
        work_as_told(planned(here / "study", FILE.replace('"snip"', '"deaf:score"'), limit=0.1, trust=True))
    (failed,) = (here / "study").glob("*/failed.json")
    assert "its process had to be ended" in json.loads(failed.read_text())["reason"]


def test_a_first_batch_is_looked_at_only_where_a_run_is_about_to_begin(here, monkeypatch):
    order = planned(here / "study")
    work_as_told(order)
    looks = []
    monkeypatch.setattr("tombola.studies.agenda.check_first_batch", lambda *own: looks.append(own))
    assert work_as_told(order).done == 0
    assert looks == []
    next((here / "study").glob("snip-*/result.json")).unlink()
    assert work_as_told(order).done == 1
    assert looks != []


def test_a_file_says_what_is_better_and_its_methods_are_ranked(here):
    text = FILE.replace('controls = ["shuffle"]', 'controls = []\nbetter = "lower"\nalso = ["loss"]').replace(
        ", 0.2", ""
    )
    order = planned(here / "study", text + '\n[[methods]]\nmethod = "random"\ndensities = [0.5]\n')
    work_as_told(order)
    (study,) = list(_looked(order).studies())
    assert [(own.measure.lower, own.also[0].measure.name) for own in study.verdicts] == [(True, "loss")] * 2
    (ranked,) = study.rankings
    assert {place.method for place in ranked.places} == {"snip", "random"}
    better = min(study.verdicts, key=lambda verdict: verdict.means["ticket"])
    assert ranked.places[0].method == better.subject


def test_a_plan_that_names_code_needs_trust_and_a_folder_without_a_plan_is_no_study(here, capsys):
    planned(here / "study", FILE.replace('"snip"', '"os:abort"'))
    assert main(["work", "study"]) == 2
    assert "names os:abort, which would be imported or read; if you know it, say --trust" in capsys.readouterr().err
    (here / "made-in-python").mkdir()
    assert main(["work", "made-in-python"]) == 2
    assert "its runs were not planned by a file" in capsys.readouterr().err


def test_results_are_filtered_sorted_and_written(here, capsys):
    order = planned(here / "study")
    work_as_told(order)
    capsys.readouterr()
    where = ["--where", "method=snip", "density<=0.3", "control=", "--columns", "method", "density"]
    assert main(["results", "study", *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [{"method": "snip", "density": 0.2}]
    assert main(["results", "study", "--csv", "a.csv", "--sort=-metric"]) == 0
    with (here / "a.csv").open() as file:
        metrics = [float(row["metric"]) for row in csv.DictReader(file)]
    assert len(metrics) == 5
    assert metrics == sorted(metrics, reverse=True)
    assert main(["results", "study", "--where", "densty<1"]) == 2
    assert "did you mean 'density'" in capsys.readouterr().err
    (study,) = list(_looked(order).studies())
    frame = study.to_dataframe()
    assert list(frame["seed"]) == [0] * 5
    assert len(study.to_dataframe("epochs")) == 5


def _looked(order: WorkOrder):
    agenda = order.agenda()
    agenda.pieces()
    return agenda


def test_a_finished_study_is_told_on_a_disk_that_can_only_be_read(here, capsys, without_pictures):
    (here / "small.toml").write_text(FILE)
    assert main(["study", "small.toml", "--out", "study"]) == 0
    told = capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in (here / "study").rglob("*")}

    with pytest.MonkeyPatch.context() as patch:
        for module, name in [
            (io, "open"),
            (builtins, "open"),
            (os, "open"),
            *((os, name) for name in ("unlink", "mkdir", "utime", "link")),
        ]:
            patch.setattr(module, name, _read_only(getattr(module, name), here / "study"))
        for words in (["study", "study"], ["study", "small.toml", "--out", "study"], ["report", "study"]):
            assert main(words) == 2
            said = capsys.readouterr()
            assert "Read-only file system" in said.err
            assert said.out.split("Runs:")[0].strip() in told.replace("Report: study/report.html\n", "")
        assert main(["report", "study", "--out", "elsewhere"]) == 0
        assert main(["results", "study", "--json"]) == 0
    assert (here / "elsewhere" / "report.html").exists()
    assert {path: path.stat().st_mtime_ns for path in (here / "study").rglob("*")} == before


def _read_only(call, folder: Path):
    """A function that changes files, or may, as it is where a folder's disk can only be read."""

    def refusing(path, *rest, **named):
        how = rest[0] if rest else named.get("mode", "r")
        in_words = isinstance(how, str)
        reads = how.startswith("r") if in_words else call.__name__ == "open" and not how & (os.O_WRONLY | os.O_CREAT)
        if not reads and isinstance(path, str | Path) and Path(path).absolute().is_relative_to(folder):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return call(path, *rest, **named)

    return refusing


def test_clean_says_first_what_it_would_remove_and_leaves_what_is_not_ours(here, capsys):
    order = planned(here / "study")
    work_as_told(order)
    finished = told(order)
    begun = next(path.parent for path in (here / "study").glob("snip-*/result.json"))
    (begun / "result.json").unlink()
    (begun / "ticket.safetensors").unlink(missing_ok=True)
    foreign = next(path.parent for path in (here / "study").glob("dense-*/result.json"))
    (foreign / "result.json").unlink()
    (foreign / "thesis.txt").write_text("mine")
    assert main(["clean", "study", "--unfinished"]) == 0
    assert "2 to remove" in capsys.readouterr().out
    assert begun.exists()
    assert main(["clean", "study", "--unfinished", "--yes"]) == 0
    assert not begun.exists()
    assert (foreign / "thesis.txt").read_text() == "mine"
    assert len(told(order)) == len(finished) - 2


def test_a_tracker_is_told_of_each_run_in_four_calls(here, monkeypatch):
    calls = []

    class Notes:
        def __init__(self, root):
            calls.append(("study", root.name))

        def __getattr__(self, name):
            return lambda *values: calls.append((name, values))

    monkeypatch.setitem(sys.modules, "notes", SimpleNamespace(Notes=Notes))
    work_as_told(planned(here / "study", trackers=("notes:Notes",)))
    names = [name for name, _ in calls]
    assert names == ["study"] + ["begin", "epoch", "end"] * 5


@pytest.mark.slow
def test_closures_go_to_other_processes_and_results_are_those_of_one(tmp_path):
    task = tb.testing.toy_task(epochs=1)
    task = replace(task, loss=lambda outputs, targets: 2 * torch.nn.functional.cross_entropy(outputs, targets))
    specs = [
        tb.RunSpec(task, tb.method("snip", density=0.5), control, seed) for seed in (0, 1) for control in ("", "random")
    ]
    alone = tb.execute(specs, tb.Store(tmp_path / "alone"))
    shared = tb.execute(specs, tb.Store(tmp_path / "shared"), Processes(2, torch.device("cpu")))
    assert [(own.metric, own.loss) for own in shared] == [(own.metric, own.loss) for own in alone]
    assert [own.settings for own in shared] == [own.settings for own in alone]
