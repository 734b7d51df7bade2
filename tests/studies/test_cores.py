"""Work on several cores."""

from __future__ import annotations

import multiprocessing
import os
import time
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch

from tombola.studies import Processes
from tombola.studies.core_pool import on_cores


def halved(number: int) -> tuple[float, int]:
    if number % 2:
        warnings.warn(f"{number} is odd", UserWarning, stacklevel=2)
    if number < 0:
        raise ValueError("there is nothing to halve")
    return number / 2, os.getpid()


def test_all_is_done_in_other_processes_and_what_they_warn_of_is_warned_of_here():
    with pytest.warns(UserWarning, match="3 is odd"):
        done = list(on_cores(2, halved, [2, 3, 4]))
    assert sorted(half for half, _ in done) == [1.0, 1.5, 2.0]
    assert os.getpid() not in {process for _, process in done}


def test_an_executor_of_processes_maps_there():
    made = dict(Processes(2, torch.device("cpu")).map(pow, [2, 3], [3, 2]))
    assert made == {0: 8, 1: 9}


def test_on_one_core_it_is_done_here():
    assert list(on_cores(1, halved, [2, 4])) == [(1.0, os.getpid()), (2.0, os.getpid())]


def held_up(number: int, waiting: Path) -> int:
    """Done at once, but for those from 2 on, which wait for a file, at most a minute."""
    until = time.monotonic() + 60
    while number >= 2 and not waiting.exists() and time.monotonic() < until:
        time.sleep(0.01)
    return number


def test_an_item_is_drawn_when_a_core_is_free_and_not_before(tmp_path):
    """The first two are done at once, and the third and fourth begun one by one as these are seen to."""
    drawn = []

    def items():
        for number in range(6):
            drawn.append(number)
            yield number

    done = on_cores(2, partial(held_up, waiting=tmp_path / "go"), items())
    assert {next(done), next(done)} == {0, 1}
    assert drawn == [0, 1, 2]
    (tmp_path / "go").touch()
    assert sorted(done) == [2, 3, 4, 5]
    assert drawn == [0, 1, 2, 3, 4, 5]


def test_processes_end_when_nobody_asks_for_more(tmp_path):
    done = on_cores(2, partial(held_up, waiting=tmp_path / "never"), [0, 2, 3])
    assert next(done) == 0
    begun = [process for process in multiprocessing.active_children() if "Loky" in process.name]
    assert begun
    done.close()
    for process in begun:
        process.join(10)
        assert not process.is_alive()


@pytest.mark.parametrize("cores", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_what_fails_there_fails_here(cores):
    with pytest.raises(ValueError, match="nothing to halve"):
        list(on_cores(cores, halved, [2, -2]))
