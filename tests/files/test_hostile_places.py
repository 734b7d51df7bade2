"""What lies where a file of data is expected: pipes, devices, links, other people's files, names that control."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

from tombola.cli import main
from tombola.errors import DamagedError, FileError, TombolaError
from tombola.files import append, as_written, content_of, held
from tombola.papers.spiral.search_records import Records, Row
from tombola.studies import Store, remains, run_folder
from tombola.studies.batch_training import clear_together
from tombola.tickets import Ticket
from tombola.training import Run, remove_stages
from tombola.training.checkpoint import Checkpoint

SOURCE = Path(__file__).parents[2] / "src" / "tombola"
ELSEWHERE = {
    "training/memory.py": "of /proc",
    "studies/resources.py": "of /sys",
    "studies/parcels.py": "of this process, in a folder of its own",
    "studies/spec.py": "of the package",
    "training/legacy.py": "of the package",
    "registry/registry.py": "of the package",
    "papers/claims/claim_files.py": "of the package",
    "training/checkpoint.py": "a start, of what is_file() has said to be one",
    "cli/output.py": "a start, of what is_file() has said to be one",
    "cli/__init__.py": "of /dev/null",
    "sparse_inference/compiler.py": "of the package, of what was just compiled, and of /proc/cpuinfo",
    "zoo/data_files.py": "of what was read",
    "zoo/image_folder.py": "of what was read",
    "zoo/minilm.py": "of an installed package",
    "report/paper.py": "of the package",
    "report/methods_paragraph.py": "of the package",
    "integrations/hub.py": "of this process, in a folder of its own",
    "shrinking/fresh_opening.py": "of this process, in a folder of its own",
    "shrinking/int8.py": "of this process, in a folder of its own, and of /proc/cpuinfo",
}
"""The files that open others not by the package `files`, and what these are."""


def opened(path):
    """Calls in a file of source that read or write another file."""
    text = path.read_text()
    if not re.search(r"open\(|load_file\(|truncate\(|(read|write)_(text|bytes)\(", text):
        return
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(func=ast.Name(id="open" | "load_file") | ast.Attribute(attr=("truncate" | "open"))):
                yield node.lineno
            case ast.Call(func=ast.Attribute(attr="read_text" | "read_bytes" | "write_text" | "write_bytes")):
                yield node.lineno


def test_files_are_opened_in_one_place():
    places = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if any(opened(path))}
    assert {place for place in places if not place.startswith("files/")} == set(ELSEWHERE)


@pytest.fixture(params=["pipe", "device", "sparse"])
def endless(request, tmp_path):
    """What a reader of files waits for, or fills its memory with."""
    path = tmp_path / "endless"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(2**42)
    return path


def test_what_never_ends_is_refused_at_once(endless):
    with pytest.raises(TombolaError, match=r"no file of data|more than this machine has memory"):
        content_of(endless)
    with pytest.raises(DamagedError):
        as_written(endless, str, "remove it")
    with pytest.raises(DamagedError):
        Ticket.load(endless)
    with pytest.warns(UserWarning, match="stands aside"):
        assert Checkpoint(endless).load() is None


def test_a_holder_that_is_a_pipe_keeps_nobody_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr("tombola.files.lease.NEXT", 0.05)
    os.mkfifo(tmp_path / ".holder-1")
    os.utime(tmp_path / ".holder-1", (0, 0))
    with held(tmp_path) as lease:
        assert lease.number == 2


def test_nothing_is_appended_through_a_link_or_to_a_copy(tmp_path):
    mine, link, log, backup = (tmp_path / name for name in ("mine", "link", "log", "backup"))
    mine.write_text("mine\n")
    link.symlink_to(mine)
    with pytest.raises(FileError, match="could not write"):
        append(link, "x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="could not write"):
        append(tmp_path / "pipe", "x")
    append(log, "1\n")
    os.link(log, backup)
    append(log, "2\n")
    assert (mine.read_text(), log.read_text(), backup.read_text()) == ("mine\n", "1\n2\n", "1\n")


def test_stages_that_are_a_link_are_neither_written_nor_cleared(tmp_path):
    theirs = tmp_path / "theirs" / "one.pt"
    Checkpoint(theirs).save({})
    own = tmp_path / "run"
    own.mkdir()
    (own / "stages").symlink_to(theirs.parent)
    for use in (lambda: Run(folder=own).file("x"), lambda: Run(folder=own).part("x", 0)):
        with pytest.raises(FileError, match="is a link"):
            use()
    remove_stages(own / "stages")
    clear_together(own)
    assert theirs.exists()


def test_a_run_is_not_begun_in_what_a_link_leads_to(tmp_path):
    settings = {"task": {}, "seed": 0, "threads": 1, "device": "cpu"}
    own = Store(tmp_path).folder("imp", settings).path
    (tmp_path / "theirs").mkdir()
    own.symlink_to(tmp_path / "theirs")
    with pytest.raises(FileError, match="is a link"):
        Store(tmp_path).folder("imp", settings)


@pytest.mark.parametrize("text", ["my only copy", '{"my": "own"}'])
def test_records_that_no_search_wrote_stay(tmp_path, text):
    path = tmp_path / "tried.jsonl"
    path.write_text(text)
    with pytest.raises(FileError, match="ends in what no search wrote"):
        Records(path, Row)
    assert path.read_text() == text
    path.write_text('{"structure": "3,3,3", "se')
    assert Records(path, Row).rows == {}
    assert path.read_text() == ""


def test_other_programs_settings_are_no_run(tmp_path):
    for name, text in {".vscode": "{}", "app": '{"threads": 1, "device": "gpu"}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.json").write_text(text)
    assert remains(tmp_path, unfinished=True) == []


def test_a_damaged_failure_lets_the_run_be_tried_again(tmp_path):
    (tmp_path / "failed.json").write_text("{")
    assert run_folder.RunFolder(tmp_path).failure() is None


def test_names_that_no_file_can_have_are_refused_in_a_sentence(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["train", "x/" * 5000], ["results", "x" * 5000], ["report", "x" * 5000], ["clean", "x" * 5000]):
        assert main(words) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_only_what_controls_colours_reaches_a_terminal(tmp_path):
    from tombola.cli import Output

    with (tmp_path / "out").open("wb") as file, Output(file, "utf-8") as out:
        out.write("\x1b[1mbold\x1b[0m \x1b]0;title\x07 \x1b[2J \u202e │\n")
    assert (tmp_path / "out").read_text() == "\x1b[1mbold\x1b[0m �]0;title� �[2J � │\n"
