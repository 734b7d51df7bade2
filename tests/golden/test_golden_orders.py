"""Units are the same, and go in the same order for the same scores, as at commit 3f24205; ties included."""

from __future__ import annotations

import json

import pinned
import pytest

TOLD = json.loads((pinned.DATA / "orders.json").read_text())


@pytest.mark.parametrize(("network", "name"), pinned.ORDERED)
def test_units_go_in_the_order_in_which_they_went(network, name):
    assert json.loads(json.dumps(pinned.order(network, name))) == TOLD[f"{network}/{name}"]
