"""One process holds a folder: taken over when it is dead or silent; who was paused writes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tombola.errors import FileError
from tombola.files import LeaseLost, held, lease, write_once
from tombola.files.processes import HOST, is_alive

HOLDER = """
import sys, time
from tombola.files import held
with held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def leave_a_sign(folder, **said):
    """A holder's file as another process might have left it."""
    content = {"host": HOST, "process": os.getpid(), "started": 0.0, "token": "x"} | said
    (folder / ".holder-4").write_text(json.dumps(content))
    return folder / ".holder-4"


def test_nothing_is_left_when_the_holder_lets_go(tmp_path):
    with held(tmp_path) as first:
        assert first.number == 1
        first.check()
        assert first.path.exists()
    assert list(tmp_path.iterdir()) == []


def test_while_one_holds_the_folder_nobody_else_does(tmp_path):
    with (
        held(tmp_path),
        pytest.raises(FileError, match=f"in use by another process .process {os.getpid()}"),
        held(tmp_path),
    ):
        pass


def test_a_living_process_keeps_it_and_a_dead_one_does_not(tmp_path, other):
    with pytest.raises(FileError, match=f"process {other.pid}"), held(tmp_path):
        pass
    other.kill()
    other.wait()
    with held(tmp_path) as taken:
        assert taken.number == 2
    assert list(tmp_path.iterdir()) == []


def test_a_paused_process_is_followed_and_then_writes_nothing(tmp_path, other, monkeypatch):
    other.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(lease, "SILENT", 0.2)
    time.sleep(0.5)
    with held(tmp_path) as taken:
        taken.check()
    other.send_signal(signal.SIGCONT)


def test_who_was_followed_sees_it_before_the_next_write(tmp_path):
    with held(tmp_path) as first:
        os.utime(first.path, (0, 0))
        with held(tmp_path) as second:
            assert second.number == first.number + 1
            with pytest.raises(LeaseLost, match="another process took over"):
                first.check()
        with pytest.raises(LeaseLost):
            first.check()


def test_a_number_that_another_process_got_since_is_not_the_holder(tmp_path):
    leave_a_sign(tmp_path, started=1.0)
    assert is_alive(os.getpid())
    with held(tmp_path) as taken:
        assert taken.number == 5


def test_a_holder_on_another_host_is_waited_for_until_it_is_silent(tmp_path):
    sign = leave_a_sign(tmp_path, host="elsewhere", process=1)
    with pytest.raises(FileError, match="process 1 on another host"), held(tmp_path):
        pass
    os.utime(sign, (time.time() - 2 * lease.SILENT,) * 2)
    with held(tmp_path) as taken:
        assert taken.number == 5


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"host": 3, "process": [], "started": {}}'])
def test_a_sign_that_says_nothing_counts_until_it_is_silent(tmp_path, content):
    sign = leave_a_sign(tmp_path)
    sign.write_text(content)
    with pytest.raises(FileError, match="in use"), held(tmp_path):
        pass
    os.utime(sign, (0, 0))
    with held(tmp_path):
        pass


def test_of_many_that_want_to_follow_exactly_one_does(tmp_path):
    def take(_):
        try:
            lease._taken(tmp_path)
        except FileError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(take, range(40))) == 1


def test_what_dead_writers_left_goes_and_that_of_living_ones_stays(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "stages").mkdir()
    gone = [tmp_path / f".a.json.{HOST}-{dead.pid}.part", tmp_path / "stages" / f".b.pt.{dead.pid}.part"]
    stays = [tmp_path / f".c.json.{HOST}-{os.getpid()}.part", tmp_path / ".d.json.0badcafe-1.part", tmp_path / "e.part"]
    for path in (*gone, *stays):
        path.touch()
    with held(tmp_path):
        assert not any(path.exists() for path in gone)
        assert all(path.exists() for path in stays)


def test_writing_once_leaves_the_first(tmp_path):
    path = tmp_path / "deep" / "result.json"
    assert write_once(path, "first")
    assert not write_once(path, "second")
    assert [own.name for own in path.parent.iterdir()] == ["result.json"]
    assert path.read_text() == "first"
