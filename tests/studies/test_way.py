"""The way of a run is short: a reader who follows it from `execute` to its result stops at few functions."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import tombola as tb
from tombola.studies import RunSpec, Store, execute
from tombola.testing import toy_task

SOURCE = Path(tb.__file__).parent
STUDIES = SOURCE / "studies"
WORK = ("find", "control", "train")
"""Where a run leaves the package for what it is about."""
READ = ("RunSpec.method", "RunSpec.density", "RunFolder.is_finished", "RunFolder._read")
READ += tuple(f"RunFolder.{file}" for file in ("settings", "result", "ticket", "history"))
"""What a run is called, and what a file of its folder says: read in passing."""


def stops(specs: list[RunSpec], store: Store) -> list[str]:
    """The functions of `studies` that a run passes through, in this order, once each, and where it leaves for its work.

    A function that calls nothing else of Tombola is read where it stands, and is no stop.
    """
    seen: dict[str, str] = {}
    calls: set[str] = set()

    def is_ours(frame: FrameType | None) -> bool:
        return frame is not None and Path(frame.f_code.co_filename).is_relative_to(SOURCE)

    def note(frame: FrameType, event: str, _: object) -> None:
        if event != "call" or not is_ours(frame) or frame.f_code.co_name.startswith("<"):
            return
        caller = frame.f_back
        while is_ours(caller) and caller.f_code.co_name.startswith("<"):
            caller = caller.f_back
        if is_ours(caller):
            calls.add(caller.f_code.co_qualname)
        name, path = frame.f_code.co_qualname, Path(frame.f_code.co_filename)
        leaves = name in WORK and is_ours(caller) and Path(caller.f_code.co_filename).is_relative_to(STUDIES)
        if (path.is_relative_to(STUDIES) and name not in READ) or leaves:
            seen.setdefault(name, str(path.relative_to(SOURCE)))

    sys.setprofile(note)
    try:
        execute(specs, store)
    finally:
        sys.setprofile(None)
    return [name for name in seen if name in calls]


def test_a_run_stops_at_few_functions(tmp_path):
    spec = RunSpec(toy_task(epochs=1), tb.method("snip"), "shuffle")
    way = stops([spec], Store(tmp_path))
    assert len(way) <= 25, way
    assert way[0] == "execute"
    assert [name for name in way if name in WORK] == ["find", "control", "train"]
