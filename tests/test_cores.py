"""Work on several cores."""

from __future__ import annotations

import os
import warnings

import pytest

from tombola.studies.cores import on_cores


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


def test_on_one_core_it_is_done_here():
    assert list(on_cores(1, halved, [2, 4])) == [(1.0, os.getpid()), (2.0, os.getpid())]


@pytest.mark.parametrize("cores", [1, 2])
def test_what_fails_there_fails_here(cores):
    with pytest.raises(ValueError, match="nothing to halve"):
        list(on_cores(cores, halved, [2, -2]))


def test_items_are_drawn_as_cores_get_free():
    drawn = []

    def items():
        for number in range(0, 40, 2):
            drawn.append(number)
            yield number

    work = on_cores(2, halved, items())
    next(work)
    assert len(drawn) < 10
    list(work)
    assert len(drawn) == 20
