"""The committed records of claims say what they said at commit 3f24205; claims may be added."""

from __future__ import annotations

import json

import pinned
import pytest

TOLD = json.loads((pinned.DATA / "records.json").read_text())


@pytest.mark.parametrize("name", TOLD)
def test_the_records_are_what_they_were(name):
    assert pinned.records(pinned.RECORDS / name) == TOLD[name]
