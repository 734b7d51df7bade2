"""A study's plan that was received names no code, takes no hours to read, and replaces nothing of the user's."""

from __future__ import annotations

import pytest

import tombola as tb
from tombola.cli import study
from tombola.errors import FileError
from tombola.files import printable
from tombola.studies import PLAN, StudyFile, WorkOrder
from tombola.studies.frames import run_row
from tombola.studies.result import Result

PLAIN = """
seeds = 1
[[methods]]
method = "random"
densities = [0.5]
settings = {}
[[tasks]]
width = 0.1
"""
CODE = ["my-module:data", "channel:data", "block:x", "1mod:data", "canary:data.", "canary :data", "os:abort", "é:x"]


def plan(folder, old="", new=""):
    assert old in PLAIN
    (folder / PLAN).write_text(PLAIN.replace(old, new, 1))
    return folder / PLAN


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"random"', '"CODE"'),
        ("{}", '{ score = "CODE" }'),
        ("width", 'data = "CODE"\nwidth'),
        ("width", 'model = "CODE"\nwidth'),
        ("width", 'task-loss = "CODE"\nwidth'),
        ("width", 'task_metric = "CODE"\nwidth'),
    ],
)
def test_code_is_refused_wherever_a_plan_can_name_it(tmp_path, code, old, new):
    plan(tmp_path, old, new.replace("CODE", code))
    with pytest.raises(tb.TombolaError, match="which would be imported or read"):
        WorkOrder(str(tmp_path)).agenda()


def test_what_only_looks_like_code_is_not_refused(tmp_path):
    assert StudyFile.read(plan(tmp_path, "{}", '{ granularity = "2:4" }')).named_code() == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds = 1", f"x = {'[' * 20_000}", "nested too deep"),
        ("seeds = 1", f"{'.'.join('a' * 50_000)} = 1", "more than 2,000 dots"),
        ("seeds = 1", "seeds = 1000000000", "5,000,000,000 runs.*at most 100,000|runs and searches; give at most"),
        ("seeds = 1", f"seeds = {2**62}", "runs and searches; give at most"),
        ("[0.5]", f"[{'0.5, ' * 30_000}]", "more than 2,000 dots"),
        ("seeds", "#" * 2**18 + "\nseeds", "more than any that Tombola writes"),
    ],
)
def test_a_plan_that_would_take_hours_is_refused_at_once(tmp_path, old, new, words):
    with pytest.raises(tb.TombolaError, match=words):
        StudyFile.read(plan(tmp_path, old, new))


@pytest.mark.parametrize(
    "settings", ["{ include = 3 }", "{ granularity = 3 }", "{ prunable = 3 }", '{ granularity = "1:99999999999" }']
)
def test_settings_of_another_kind_are_refused(tmp_path, settings):
    with pytest.raises(tb.TombolaError):
        StudyFile.read(plan(tmp_path, "{}", settings)).grids()


def test_rounds_without_end_are_refused():
    with pytest.raises(tb.TombolaError, match="at most 10,000"):
        tb.method("imp", count=10**9).levels(tb.structure.Weights().units(tb.testing.toy_task().build(0), None))


def test_a_title_controls_no_terminal(tmp_path):
    read = StudyFile.read(plan(tmp_path, "seeds", 'title = "\\u001b]0;x\\u0007"\nseeds'))
    assert read.title == printable(read.title) == "�]0;x�"


def test_another_plan_in_the_folder_is_kept_and_another_programs_file_is_not_replaced(tmp_path):
    given, kept = tmp_path / "mine.toml", tmp_path / "out" / PLAN
    given.write_text(PLAIN)
    kept.parent.mkdir()
    kept.write_text(PLAIN.replace("0.5", "0.25"))
    study._plan(study.StudyOptions(given), kept.parent)
    assert kept.read_text() == PLAIN
    (earlier,) = kept.parent.glob("study-*.toml")
    assert "0.25" in earlier.read_text()
    kept.write_text("[project]\nname = 'thesis'\n")
    with pytest.raises(tb.TombolaError, match="there is no entry 'project'"):
        study._plan(study.StudyOptions(given), kept.parent)
    assert "thesis" in kept.read_text()


def test_reports_of_several_tasks_replace_nothing(tmp_path, monkeypatch):
    path = plan(tmp_path, "[[tasks]]\n", "[[tasks]]\nwidth = 0.2\n[[tasks]]\n")
    (tmp_path / "report-2").mkdir()
    (tmp_path / "report-2" / "report.html").write_text("thesis")
    with pytest.raises(FileError, match="was not written by Tombola"):
        study.run([str(path), "--out", str(tmp_path), "--threads", "1"])


def test_a_row_of_a_hostile_result_is_plain(results_row):
    row = run_row(results_row(settings={"task": "abc", "threads": [1], "device": {}}))
    assert row["threads"] is row["device"] is None
    with pytest.raises(ValueError, match="length"):
        results_row(history=[{f"k{number}": 1 for number in range(65)}])


@pytest.fixture
def results_row():
    plain = dict.fromkeys(("method", "control", "digest", "source"), "") | dict.fromkeys(
        ("density", "weight_density", "seed", "metric", "loss", "validation", "epochs"), 0
    )
    plain |= {"layers": {}, "search": {}, "training": {}, "settings": {}, "history": []}
    return lambda **other: Result.of(plain | other)
