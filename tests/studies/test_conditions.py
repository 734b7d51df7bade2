"""Threads and device are conditions: they rename no run, are shown, and asked for by --exact kept apart."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pytest
import torch

import tombola as tb
from tombola.registry import SCORES
from tombola.report import GatheredArms, write_report
from tombola.report.prose import mixed_conditions
from tombola.studies import ConditionsWarning, RunSpec, StaleWarning, prepare, search
from tombola.testing import toy_task


@pytest.fixture
def threads():
    """Sets the number of threads; afterwards it is what it was."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def specs():
    task = toy_task(epochs=1)
    method = tb.method("snip", density=0.5)
    return [RunSpec(task, method, control, seed) for seed in range(2) for control in ("", "random")]


def files(folder):
    return {path: path.read_bytes() for path in folder.glob("*/result.json")}


def test_results_of_other_threads_are_used_and_that_is_said(tmp_path, threads):
    first = tb.execute(specs(), tb.Store(tmp_path))
    before = files(tmp_path)
    threads(2)
    with pytest.warns(ConditionsWarning, match=r"4 of 4 .* \(1 thread on cpu; here 2 threads on cpu\) .*--exact"):
        assert tb.execute(specs(), tb.Store(tmp_path)) == first
    assert files(tmp_path) == before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads(1)
        assert tb.execute(specs(), tb.Store(tmp_path)) == first


@pytest.mark.usefixtures("without_pictures")
def test_the_report_says_where_conditions_are_mixed(tmp_path, threads):
    results = tb.execute(specs()[:2], tb.Store(tmp_path))
    assert mixed_conditions(GatheredArms.of(results, ())) == ""
    threads(2)
    more = tb.execute(specs()[2:], tb.Store(tmp_path))
    said = mixed_conditions(GatheredArms.of([*results, *more], ()))
    assert said.endswith("2 results with 1 thread on cpu and 2 results with 2 threads on cpu.")
    assert said in write_report([*results, *more], (), tmp_path, title="Mixed").read_text()


def test_a_run_of_the_first_version_whose_code_is_not_known_is_made_again_and_that_is_said(tmp_path):
    spec = RunSpec(replace(toy_task(epochs=1), loss=half), seed=1)
    tb.execute([spec], tb.Store(tmp_path))
    (folder,) = (own.parent for own in tmp_path.glob("*/settings.json"))
    settings = json.loads((folder / "settings.json").read_text())
    settings["loss"] = "test_conditions.half#0a1b2c3d"
    old = {key: value for key, value in settings.items() if key not in ("forward", "label")}
    (folder / "settings.json").write_text(json.dumps(old))
    folder.rename(folder.with_name("dense-1-s1-0123456789ab"))
    with pytest.warns(StaleWarning, match="did not record what your own code does; it is made again"):
        tb.execute([spec], tb.Store(tmp_path))
    assert len(files(tmp_path)) == 2


def half(outputs, targets):
    return torch.nn.functional.cross_entropy(outputs, targets) / 2


def test_exact_keeps_a_second_result_beside_the_first(tmp_path, threads):
    first = tb.execute(specs(), tb.Store(tmp_path))
    before = files(tmp_path)
    threads(2)
    second = tb.execute(specs(), tb.Store(tmp_path, exact=True))
    assert {result.settings["threads"] for result in second} == {2}
    assert len(files(tmp_path)) == 2 * len(before)
    assert before.items() <= files(tmp_path).items()
    assert tb.execute(specs(), tb.Store(tmp_path)) == second, "those of today's conditions go first"
    threads(1)
    assert tb.execute(specs(), tb.Store(tmp_path, exact=True)) == first


class Killed(Exception):
    """In place of a kill."""


def test_a_search_that_goes_on_under_other_conditions_says_so(tmp_path, threads, monkeypatch):
    task, method = toy_task(epochs=2), tb.method("imp", density=0.5, count=3)
    stages = tb.Run.stage
    begun = []

    def killed(run, name, *rest, **more):
        begun.append(name)
        if len(begun) == 2:
            raise Killed
        return stages(run, name, *rest, **more)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(tb.Run, "stage", killed)
        search(task, method, 0, tb.Store(tmp_path), tb.studies.Serial())
    threads(2)
    with pytest.warns(ConditionsWarning, match="began with 1 thread on cpu and goes on with 2 threads on cpu"):
        ticket, folder = search(task, method, 0, tb.Store(tmp_path), tb.studies.Serial())
    assert json.loads((folder.path / "settings.json").read_text())["began"] == {"threads": 1, "device": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert search(task, method, 0, tb.Store(tmp_path), tb.studies.Serial())[0] == ticket


def test_the_precision_that_auto_comes_to_is_part_of_a_run(tmp_path, monkeypatch):
    task = tb.training.with_recipe(toy_task(), tb.Recipe(epochs=1, batch=20))
    monkeypatch.setattr(tb.Recipe, "resolved_precision", lambda self, device: "float32")
    one = prepare(RunSpec(task), tb.Store(tmp_path), tb.studies.Serial())
    assert (one.settings["precision"], one.spec.task.recipe.precision) == ("float32", "float32")
    monkeypatch.setattr(tb.Recipe, "resolved_precision", lambda self, device: "bf16")
    two = prepare(RunSpec(task), tb.Store(tmp_path), tb.studies.Serial())
    assert one.folder.path != two.folder.path


def test_a_study_resolves_precision_once_for_all_runs_of_a_task():
    task, executor = tb.training.with_recipe(toy_task(), tb.Recipe(epochs=1)), tb.studies.Serial()
    runs = [prepare(RunSpec(task, seed=seed), tb.Store("nowhere"), executor) for seed in range(3)]
    assert len({id(run.spec.task) for run in runs}) == 1


def test_a_label_that_no_folder_can_have_names_none(tmp_path):
    spec = RunSpec(toy_task(), tb.method("imp", rewind="2it"), label="../a b/c:d[e]")
    path = prepare(spec, tb.Store(tmp_path), tb.studies.Serial()).folder.path
    assert path.parent == tmp_path
    assert set(path.name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def test_a_score_that_is_edited_is_no_longer_what_was_found(tmp_path, monkeypatch):
    task = toy_task(epochs=1)
    store = tb.Store(tmp_path)
    before = search(task, tb.method("snip", density=0.5), 0, store, tb.studies.Serial())[1].path
    monkeypatch.setitem(SCORES.own, "snip", tb.registry.Entry("snip", SCORES.own["snip"].where, version=2))
    assert search(task, tb.method("snip", density=0.5), 0, store, tb.studies.Serial())[1].path != before


def test_a_prepared_run_can_be_sent_elsewhere_and_takes_no_task_s_id_along(tmp_path):
    import pickle

    from tombola.studies.executor import Serial
    from tombola.studies.prepared import prepare

    own = prepare(tb.RunSpec(toy_task(epochs=1), tb.method("snip", density=0.5)), tb.Store(tmp_path), Serial())
    sent = pickle.loads(pickle.dumps(own))
    assert (sent.folder.path, sent.settings) == (own.folder.path, own.settings)
    assert vars(sent.executor.tasks) == vars(Serial().tasks)
    assert vars(own.executor.tasks) != vars(Serial().tasks)
