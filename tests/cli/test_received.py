"""A file that was received chooses no code, no path and no option, and shows nothing that controls a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tombola as tb
from tombola.cli import main
from tombola.shrinking import small_folder
from tombola.tickets.ticket_file import write_file

COMMANDS = ["train", "check", "shrink", "robustness"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "canary.py").write_text("open('sang', 'w').close()\ndef data(): open('called', 'w').close()\n")


@pytest.fixture(scope="module")
def ticket():
    """A ticket of the digits, as `tombola find random` makes it."""
    from tombola.studies import TaskOptions, make_task

    task = make_task(TaskOptions(recipe=tb.Recipe(epochs=1, batch=64, precision="float32")))
    return tb.find(task, tb.method("random", density=0.5), seed=0)


def received(ticket, path="t.safetensors", **task):
    """The ticket as a file whose task says something else; its digest is right."""
    provenance = replace(ticket.provenance, task={**ticket.provenance.task, **task})
    replace(ticket, provenance=provenance).save(path)
    return path


def refused(capsys, *words):
    assert main(list(words)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("tombola: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("key", ["data", "model"])
def test_code_that_a_file_names_is_neither_imported_nor_called(ticket, capsys, command, key):
    received(ticket, **{key: "canary:data"})
    message = refused(capsys, command, "t.safetensors", "--out", "out")
    assert f"the {key} 'canary:data'" in message
    assert f"--{key} canary:data, or --trust" in message
    assert not Path("sang").exists()
    assert not Path("out").exists()


def test_code_that_is_typed_or_trusted_is_called(ticket, capsys):
    received(ticket, data="canary:data")
    for more in (["--data", "canary:data"], ["--trust"]):
        assert "the data 'canary:data' gave a NoneType" in refused(capsys, "train", "t.safetensors", *more)
        assert Path("called").exists()
        Path("called").unlink()


@pytest.mark.parametrize("command", COMMANDS)
def test_options_that_are_none_of_a_task_are_not_taken(ticket, capsys, command):
    precious = Path("precious")
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    received(ticket, out="precious", fresh="", device="cuda:9", trust="", **{"recipe.epochs": "1 --out precious"})
    assert "recipe.epochs" not in refused(capsys, command, "t.safetensors", "--out", "out")
    received(ticket, out="precious", fresh="", device="cuda:9", trust="", data="canary:data")
    refused(capsys, command, "t.safetensors", "--out", "out")
    assert [path.name for path in precious.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "label",
    [
        {"width": "1e30"},
        {"recipe.epochs": "9" * 4000},
        {"width": "nan"},
        {"hold-out": "-3"},
        {"recipe.epochs": "many"},
        {"recipe.epochs": "1 --fresh"},
        {"recipe.lr": "nan"},
        {"recipe.optimizer": "rm -rf"},
        {"recipe.milestones": "--out x"},
        {"data-dir": "/etc"},
        {"checkpoint": "/etc/passwd"},
        {"data": "no-such-data"},
        {"model": "../../etc/passwd"},
        {"data": ["digits"]},
    ],
    ids=str,
)
def test_a_label_that_no_task_has_is_one_sentence(ticket, capsys, label):
    received(ticket, **label)
    refused(capsys, "train", "t.safetensors", "--out", "out")
    assert not Path("out").exists()


def test_a_folder_is_named_by_a_fixed_alphabet(ticket, capsys):
    for method in ("../../escaped", "a\x00b", "\ud800", "x" * 500, "/abs", "..", "con\n"):
        provenance = replace(ticket.provenance, method=method)
        replace(ticket, provenance=provenance).save("t.safetensors")
        assert main(["train", "t.safetensors", "--recipe.epochs", "1", "--json"]) == 0
        capsys.readouterr()
    names = [path.name for path in Path("runs").iterdir()]
    assert all(name.replace("-", "").replace(".", "").replace("_", "").isalnum() for name in names)
    assert not Path("../escaped").exists()
    assert not Path("../../escaped").exists()


def test_what_a_file_is_called_cannot_control_terminal_or_page(ticket, capsys):
    method = "imp[/b]\x1b]0;owned\x07\x1b[31m<script>alert(1)</script>[link=file:///etc]x[/link]"
    replace(ticket, provenance=replace(ticket.provenance, method=method)).save("t.safetensors")
    words = ["--seeds", "2", "--controls", "random", "--recipe.epochs", "1", "--out", "out"]
    assert main(["check", "t.safetensors", *words]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[/b]" in shown
    page = Path("out/report.html").read_text()
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert main(["report", "out"]) == 0


@pytest.mark.parametrize(
    "recipe",
    [{"batch": None}, {"warmup": "long"}, {"lr": {}}, {"start": [1]}, {"epochs": -1}, {"lr": "x"}, {"unheard": 1}],
    ids=str,
)
def test_a_recipe_that_no_training_has_is_one_sentence(ticket, capsys, recipe):
    _rewritten(ticket, recipe=recipe)
    refused(capsys, "train", "t.safetensors", "--out", "out")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "was written by a newer Tombola"),
        ({"shapes": {"1.weight": [2] * 70}}, "not the ones"),
        ({"start": {"seed": "0", "digest": "", "weights": "own"}}, "seed: expected `int`"),
        ({"start": {"seed": 0, "digest": "", "weights": "mine"}}, "weights"),
        ({"held": ["a\ntombola: it wins"]}, "cannot be shown"),
        ({"held": "all"}, "held: expected `array`"),
        ({"removed": {"g": [-1]}}, "units by number"),
        ({"provenance": {"ties": "many"}}, "ties"),
        ({"provenance": []}, "provenance: expected `object`"),
    ],
    ids=str,
)
def test_a_description_that_does_not_fit_is_one_sentence(ticket, capsys, change, says):
    _rewritten(ticket, **change)
    assert says in refused(capsys, "train", "t.safetensors", "--out", "out")


def test_what_a_newer_version_adds_is_ignored(ticket):
    _rewritten(ticket, from_the_future={"a": [1]})
    assert tb.Ticket.load("t.safetensors").digest == ticket.digest


def _rewritten(ticket, **change):
    """The ticket's file with another description and the digest that this one has."""
    ticket.save("t.safetensors")
    data = Path("t.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    content = json.loads(header["__metadata__"]["tombola"])
    tensors = load_file("t.safetensors")
    write_file(Path("t.safetensors"), {**{k: v for k, v in content.items() if k != "digest"}, **change}, tensors)


@pytest.mark.parametrize("words", [["--out", "docs", "--fresh"], ["--out", "docs"]], ids=["fresh", "not fresh"])
@pytest.mark.parametrize(
    "command",
    [
        ["find", "random"],
        ["train", "dense"],
        ["compare", "random", "--seeds", "1"],
        ["check", "random", "--seeds", "1"],
        ["sanity", "random", "--seeds", "1"],
        ["shrink", "t.safetensors"],
        ["enough"],
        ["sparsest"],
    ],
    ids=lambda command: command[0],
)
def test_nothing_that_tombola_did_not_write_is_removed_or_replaced(ticket, capsys, command, words):
    ticket.save("t.safetensors")
    for name in (
        "report.html",
        "study.json",
        "settings.json",
        "network.json",
        "notes/thesis.tex",
        "stages/round-00.pt",
    ):
        path = Path("docs") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("years of work")
    before = {path: path.read_bytes() for path in Path("docs").rglob("*") if path.is_file()}
    refused(capsys, *command, *words)
    assert {path: path.read_bytes() for path in Path("docs").rglob("*") if path.is_file()} == before


def test_fresh_clears_a_run_and_not_what_lies_beside_it(capsys):
    words = ["find", "random", "--density", "0.5", "--out", "r"]
    assert main([*words, "--json"]) == 0
    capsys.readouterr()
    Path("r/notes.txt").write_text("mine")
    assert "r holds notes.txt beside a run" in refused(capsys, *words, "--fresh")
    Path("r/notes.txt").unlink()
    assert main([*words, "--fresh", "--json"]) == 0


def test_fresh_clears_no_folder_in_which_nothing_is_known(capsys):
    Path("r").mkdir()
    Path("r/settings.json").write_text("{half of it")
    assert "nothing in r can be read as a run's" in refused(
        capsys, "find", "random", "--density", "0.5", "--out", "r", "--fresh"
    )
    assert Path("r/settings.json").read_text() == "{half of it"


def test_a_finished_run_is_read_where_nothing_can_be_written(capsys):
    words = ["train", "dense", "--recipe.epochs", "1", "--out", "r", "--json"]
    assert main(words) == 0
    first = capsys.readouterr().out
    before = sorted(Path("r").iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tombola.studies.run_folder.held", _cannot)
        assert main(words) == 0
    assert capsys.readouterr().out == first
    assert sorted(Path("r").iterdir()) == before


def _cannot(*_):
    raise PermissionError("read-only")


def test_damaged_checkpoints_are_set_aside_and_the_end_is_the_same(capsys, monkeypatch):
    warnings.simplefilter("default")
    words = ["find", "imp", "--density", "0.5", "--recipe.epochs", "1", "--json"]
    assert main([*words, "--out", "whole"]) == 0
    whole = json.loads(capsys.readouterr().out)

    def stop(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tombola.studies.run_folder.RunFolder.finish_search", stop)
        assert main([*words, "--out", "t"]) == 130
    stages = sorted(Path("t/stages").glob("*.pt"))
    assert len(stages) > 2
    for number, path in enumerate(stages):
        data = bytearray(path.read_bytes())
        data[-1 - number * 7 % len(data)] ^= 1 << number % 8
        path.write_bytes(bytes(data[: len(data) // 2]) if number == 1 else bytes(data))
    capsys.readouterr()
    assert main([*words, "--out", "t"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["mask_digest"] == whole["mask_digest"]
    assert said.err.count("stands aside") == len(stages)
    assert not Path("t/stages").exists()


SIGNALS = pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)


@SIGNALS
def test_a_signal_is_one_sentence_and_a_status(number, status):
    """Of a command that only waits: what stands for it imports no torch."""
    program = (
        "import sys, types, signal; command = types.ModuleType('tombola.cli.find'); "
        f"command.run = lambda words: signal.raise_signal({int(number)}); sys.modules['tombola.cli.find'] = command; "
        "sys.argv = ['tombola', 'find']; from tombola.cli import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stderr.strip() == "tombola: stopped; run the same command again and it goes on where it was"


@pytest.mark.slow
@SIGNALS
def test_a_signal_ends_as_ctrl_c_does(number, status):
    words = [sys.executable, "-m", "tombola.cli", "find", "imp", "--density", "0.02", "--recipe.epochs", "40"]
    with subprocess.Popen([*words, "--out", "t"], stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while not list(Path("t").rglob("*.pt")) and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(number)
        said = process.communicate()[1]
    assert process.returncode == status
    assert said.strip().endswith("stopped; run the same command again and it goes on where it was")
    assert "Traceback" not in said
    assert not [*Path("t").rglob("*.part"), *Path("t").glob(".holder-*")]


def test_a_reader_that_goes_away_and_a_full_disk_are_no_tracebacks():
    words = f"{sys.executable} -m tombola.cli"
    for command, status, says in (
        (f"{words} methods | head -1", 0, ""),
        (f"{words} --help | true", 0, ""),
        (f"{words} methods > /dev/full", 1, "could not write the output (No space left on device)"),
    ):
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert done.returncode == status
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        assert says in done.stderr


def test_an_ascii_terminal_loses_letters_and_not_the_work():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    words = [sys.executable, "-m", "tombola.cli", "methods"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    assert "imp" in done.stdout


TINY = ["--width", "0.1", "--recipe.epochs", "1", "--json"]
COMPARE = ["compare", "random", "--densities", "0.5", "--seeds", "1", "--controls", "random", "--out", "docs", *TINY]


def test_a_folder_of_the_users_that_is_called_as_ours_stays(capsys):
    for name in ("together-photos/thesis.tex", "together-0123456789ab/thesis.tex"):
        path = Path("docs") / name
        path.parent.mkdir(parents=True)
        path.write_text("years of work")
    assert main(COMPARE) == 0
    assert [path.name for path in Path("docs").glob("together-*/*")] == ["thesis.tex", "thesis.tex"]


def test_networks_of_the_users_among_stages_stay(ticket, capsys):
    warnings.simplefilter("default")  # That nothing can be cut out is said.
    ticket.save("t.safetensors")
    Path("docs/stages").mkdir(parents=True)
    for name in ("model.pt", "train.end.pt", "film.part", "notes.damaged"):
        torch.save({"w": torch.ones(2)}, Path("docs/stages") / name)
    before = sorted(Path("docs/stages").iterdir())
    assert main(["shrink", "t.safetensors", "--out", "docs", "--recipe.epochs", "1", "--json", "--fresh"]) == 0
    assert sorted(Path("docs/stages").iterdir()) == before
    capsys.readouterr()
    assert "docs is no run's folder" in refused(capsys, "find", "random", "--out", "docs", "--fresh", *TINY)


@pytest.mark.parametrize("name", ["ticket.safetensors", "history.jsonl", "search.svg", "stages/train.end.pt"])
def test_what_a_run_would_write_is_the_users_where_no_run_was_begun(ticket, capsys, name):
    path = Path("docs") / name
    path.parent.mkdir(parents=True)
    ticket.save(path)
    before = path.read_bytes()
    assert "docs is no run's folder" in refused(capsys, "find", "snip", "--out", "docs", *TINY)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (COMPARE, "overview.png"),
        (COMPARE, "study.json"),
        (["enough", "--out", "docs"], "enough.html"),
        (["sparsest", "--out", "docs"], "sparsest.json"),
        (["shrink", "t.safetensors", "--to", "onnx", "--out", "docs"], "network.onnx"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_page_that_is_ours_does_not_make_the_rest_ours(ticket, capsys, command, name):
    ticket.save("t.safetensors")
    Path("docs/notes.html").mkdir(parents=True)
    Path("docs/other.html").write_text('<meta name="generator" content="Tombola">')
    (Path("docs") / name).write_text("years of work")
    refused(capsys, *command)
    assert (Path("docs") / name).read_text() == "years of work"


def test_shrinking_does_not_go_on_from_another_training(ticket, capsys, monkeypatch):
    warnings.simplefilter("default")  # That nothing can be cut out is said.
    ticket.save("t.safetensors")

    def stop(*_, **__):
        raise KeyboardInterrupt

    words = ["shrink", "t.safetensors", "--out", "small", "--json"]
    with monkeypatch.context() as patch:
        patch.setattr("tombola.cli.shrink.save_small", stop)
        assert main([*words, "--recipe.epochs", "2"]) == 130
    assert main([*words, "--recipe.epochs", "1", "--seed", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["cost"]["dense_epochs"] == 1
    assert sorted(path.name for path in Path("small").iterdir()) == ["network.json", "weights.safetensors"]


def test_a_kill_between_the_two_files_of_a_smaller_network_is_made_good(ticket, capsys, monkeypatch):
    warnings.simplefilter("default")  # That nothing can be cut out is said.
    ticket.save("t.safetensors")
    write, words = small_folder.write_atomically, ["shrink", "t.safetensors", "--out", "small", "--recipe.epochs", "1"]

    def once(path, data):
        write(path, data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(small_folder, "write_atomically", once)
        assert main(words) == 130
    capsys.readouterr()
    assert main([*words, "--json"]) == 0


def test_a_record_chooses_no_folder(ticket, capsys):
    assert main(["train", "dense", "--out", "r", *TINY]) == 0
    result = tb.studies.RunFolder("r").result()
    store = tb.studies.Store("runs")
    store.adopt([replace(result, digest=digest) for digest in ("../escaped", "..", str(Path("abs").resolve()))])
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["canary.py", "r", "runs"]
    assert all(path.parent == Path("runs") for path in Path("runs").iterdir())


def test_a_damaged_run_does_not_stop_others(capsys):
    Path("runs/.vscode").mkdir(parents=True)
    Path("runs/.vscode/settings.json").write_text("{ // mine")
    assert main(["train", "dense", *TINY]) == 0
    assert Path("runs/.vscode/settings.json").read_text() == "{ // mine"


def test_help_shows_no_control_characters_of_a_file(ticket, capsys):
    received(ticket, model="x\x1b]0;owned\x07[/b]")
    with pytest.raises(SystemExit) as end:
        main(["train", "t.safetensors", "--help"])
    assert end.value.code == 0
    assert "\x1b]" not in capsys.readouterr().out
    assert "\x1b" not in repr(replace(ticket, provenance=replace(ticket.provenance, method="\x1b]0;owned")))


def test_tasks_that_cannot_be_compared_by_hash_are_one_sentence(ticket, capsys):
    received(ticket, data=["digits"])
    refused(capsys, "robustness", "t.safetensors", "--out", "out")


def test_a_result_with_another_digit_is_not_believed(capsys):
    warnings.simplefilter("default")
    assert main(["train", "dense", "--out", "r", *TINY]) == 0
    whole = json.loads(capsys.readouterr().out)
    path = Path("r/result.json")
    path.write_text(path.read_text().replace('"metric": 0.', '"metric": 9.'))
    assert main(["train", "dense", "--out", "r", *TINY]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["metric"] == whole["metric"]
    assert "do not match its digest" in said.err
    content = json.loads(path.read_text())
    del content["check"]  # as the first version wrote it
    path.write_text(json.dumps(content))
    assert main(["train", "dense", "--out", "r", *TINY]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(said.out)


@pytest.mark.parametrize("name", ["greedy-bounds.md", "greedy-bounds.svg", "greedy-bounds.jsonl"])
def test_a_claim_replaces_no_page_of_the_users(capsys, name):
    path = Path("out/quick") / name
    path.parent.mkdir(parents=True)
    path.write_text("years of work")
    assert f"{name} was not written by Tombola" in refused(
        capsys, "claims", "greedy-bounds", "--quick", "--out", "out", "--fresh"
    )
    assert path.read_text() == "years of work"


@pytest.mark.parametrize(
    "recipe",
    [
        {"epochs": 10**400},
        {"lr": 10**400},
        {"batch": 10**12},
        {"start": "9" * 5000 + "it"},
        {"gamma": 1e308, "milestones": [0.0, 0.0]},
    ],
    ids=["epochs", "lr", "batch", "start", "gamma"],
)
def test_a_recipe_beyond_all_bounds_is_one_sentence(ticket, capsys, recipe):
    _rewritten(ticket, recipe=recipe)
    refused(capsys, "train", "t.safetensors", "--out", "out")


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.complex64])
def test_stored_values_of_another_kind_are_one_sentence(ticket, capsys, kind):
    from tombola.studies import TaskOptions, make_task

    values = {name: tensor.to(kind) for name, tensor in make_task(TaskOptions()).build(0).state_dict().items()}
    replace(ticket, start=tb.tickets.Values(values, "1ep")).save("t.safetensors")
    assert "the stored values of" in refused(capsys, "train", "t.safetensors", "--out", "out")


@pytest.mark.parametrize("spent", [-1.0, 1e9])
def test_a_start_that_took_no_possible_time_is_one_sentence(ticket, capsys, spent):
    replace(ticket, start=tb.tickets.Values({"a": torch.ones(1)}, "1ep", spent)).save("t.safetensors")
    assert "epochs_spent" in refused(capsys, "check", "t.safetensors", "--out", "out")


@pytest.mark.parametrize(
    ("asked", "typed", "words"),
    [
        ({"recipe.compile": ""}, [], "starts a compiler here; type --recipe.compile or --recipe.no-compile"),
        ({"recipe.epochs": "1000000"}, [], "type --recipe.epochs 1000000 if that is meant"),
        ({"recipe.compile": ""}, ["--recipe.no-compile"], ""),
        ({"recipe.epochs": "1000000"}, ["--recipe.epochs", "1"], ""),
        ({"recipe.epochs": "2000"}, [], ""),
    ],
)
def test_what_is_costly_is_typed_and_not_taken_from_a_file(asked, typed, words):
    from tombola.studies import options_from

    said = {"data": "digits", "model": "lenet-300-100", **asked}
    if not words:
        options_from(said, typed)
        return
    with pytest.raises(tb.TombolaError, match=words):
        options_from(said, typed)
    options_from(said, typed, trust=True) if "epochs" in words else None


def test_a_ticket_asks_for_no_compiler_and_not_for_far_more_training_than_its_task(ticket, tmp_path):
    from tombola.training import recipe_of

    task = tb.testing.toy_task(epochs=1)
    replace(ticket, recipe={"compile": True}).save(tmp_path / "t")
    with pytest.raises(tb.TombolaError, match="'compile', which whoever trains it decides"):
        tb.Ticket.load(tmp_path / "t")
    with pytest.raises(tb.TombolaError, match="prescribes 1,000,000 epochs, and its task is learnt in 1"):
        recipe_of(task, replace(ticket, recipe={"epochs": 10**6}))
    late = tb.tickets.Values({}, "end", epochs_spent=1e6)
    with pytest.raises(tb.TombolaError, match="starts after 1,000,000 epochs"):
        recipe_of(task, replace(ticket, start=late))
    assert recipe_of(task, replace(ticket, recipe={"epochs": 30})).epochs == 30


@pytest.mark.parametrize("width", [1e4, 1e9, 1e300])
def test_a_network_that_no_machine_holds_is_not_built(width):
    with pytest.raises(tb.TombolaError, match="larger than this machine's memory"):
        tb.zoo.model("lenet-300-100", (1, 8, 8), 10, width)
