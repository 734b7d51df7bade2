"""One process holds a folder: taken over when it is dead or silent; who was paused writes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tombola.errors import FileError
from tombola.files import LeaseLost, held, lease, write_atomically, write_once
from tombola.files.processes import HOST, is_alive

HOLDER = """
import sys, time
from tombola.files import held
with held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Who seems silent is watched for a moment, and not for seconds."""
    monkeypatch.setattr(lease, "NEXT", 0.05)


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
    content = {"host": HOST, "process": os.getpid(), "after_boot": 0.0, "token": "x"} | said
    (folder / ".holder-4").write_text(json.dumps(content))
    return folder / ".holder-4"


def test_nothing_is_left_when_the_holder_lets_go(tmp_path):
    with held(tmp_path) as first:
        assert first.number == 1
        first.check()
        assert first.path.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("off", [-2 * lease.SILENT, 2 * lease.SILENT])
def test_a_sign_that_is_old_or_from_the_future_holds_nothing(tmp_path, off):
    sign = leave_a_sign(tmp_path, host="another")
    os.utime(sign, (time.time() + off,) * 2)
    with held(tmp_path) as own:
        assert own.number == 5


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_file_is_no_folder(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(FileError, match=r"file is a file, where a folder is to be; .* another --out"),
        held(tmp_path / place),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"


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


def test_who_lives_keeps_it_when_the_clock_is_set(tmp_path, other, monkeypatch):
    """The start of a process counts from the machine's, and one that seems silent has the time to give a sign."""
    monkeypatch.setattr(psutil, "boot_time", lambda own=psutil.boot_time: own() + 7200.0)
    create = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda own: create(own) + 7200.0)
    os.utime(tmp_path / ".holder-1", (time.time() - 7200,) * 2)
    monkeypatch.setattr(lease, "NEXT", 0.4)
    threading.Timer(0.1, os.utime, [tmp_path / ".holder-1"]).start()
    with pytest.raises(FileError, match="in use"), held(tmp_path):
        pass


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
    leave_a_sign(tmp_path, after_boot=1.0)
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


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"host": 3, "process": [], "after_boot": {}}', "[" * 100_000]
)
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


def test_numbers_that_no_process_has_are_of_none(tmp_path):
    for process in (-1, 10**30):
        leave_a_sign(tmp_path, process=process)
        with held(tmp_path):
            pass


def test_who_lets_go_late_leaves_the_sign_of_the_next(tmp_path, monkeypatch):
    check = lease.Lease.check

    def followed(self):
        check(self)
        (tmp_path / ".holder-2").write_text("{}")

    with held(tmp_path):
        monkeypatch.setattr(lease.Lease, "check", followed)
    assert [path.name for path in tmp_path.iterdir()] == [".holder-2"]


def test_who_followed_one_that_let_go_gives_way_to_who_began_anew(tmp_path):
    leave_a_sign(tmp_path).rename(tmp_path / ".holder-1")  # of a process that is dead
    gone = lease._is_gone

    def overtaken(folder, path):
        answer = gone(folder, path)
        if answer and path.name == ".holder-1":
            path.unlink()
            others.append(lease._taken(tmp_path))
        return answer

    others = []
    with pytest.MonkeyPatch.context() as patch, pytest.raises(FileError, match="in use"):
        patch.setattr(lease, "_is_gone", overtaken)
        lease._taken(tmp_path)
    others[0].check()


def test_only_the_folder_and_its_stages_are_searched_for_leftovers(tmp_path):
    other = tmp_path / "mine"
    own = tmp_path / "run"
    (own / "sub").mkdir(parents=True)
    other.mkdir()
    (own / "link").symlink_to(other)
    (own / "stages").symlink_to(other)
    parts = [other / ".film.mkv.4194999.part", own / "sub" / ".film.mkv.4194999.part"]
    for part in parts:
        part.touch()
    with held(own):
        pass
    assert all(part.exists() for part in parts)


def test_a_part_is_not_written_through_a_link(tmp_path):
    (tmp_path / "mine").write_text("mine")
    lease.part_of(tmp_path / "a.json").symlink_to(tmp_path / "mine")
    write_atomically(tmp_path / "a.json", "ours")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "a.json").read_text() == "ours"
