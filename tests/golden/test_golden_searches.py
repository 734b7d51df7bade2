"""Every preset finds the masks that it found at commit 3f24205, by the losses that it saw there."""

from __future__ import annotations

import json

import numpy as np
import pinned
import pytest

import tombola as tb

TOLD = json.loads((pinned.DATA / "searches.json").read_text())
BITS = np.load(pinned.DATA / "searches.npz")
LOSS = 1e-9
SINGLE = 1e-5
"""Of losses that were computed in single precision, as scores do: these differ between processors."""


def cases() -> list:
    """All; on the transformer those that two other networks have, of weights and of channels, are slow tests."""
    own = tb.METHODS
    units = {name for name, entry in own.own.items() if entry.unit not in ("weight", "channel")}
    slow = pytest.mark.slow
    return [
        pytest.param(network, name, marks=[slow] if network == "vit" and name not in units else [])
        for network, name in pinned.CASES
    ]


@pytest.mark.parametrize(("network", "name"), cases())
def test_a_search_finds_the_mask_that_it_found(network, name):
    key = f"{network}/{name}"
    expected = dict(TOLD[key])
    found, mask = pinned.searched(network, name)
    if "refusal" in expected:
        assert found == expected
        return
    losses, shapes = expected.pop("losses"), TOLD["shapes"][expected.pop("shapes")]
    assert json.loads(json.dumps(found.pop("shapes"))) == shapes
    assert list(found["removed"]) == list(expected["removed"])
    differing = int(np.bitwise_count(pinned.packed(mask) ^ BITS[key]).sum())
    assert differing == 0, f"{differing} of {mask.size} weights are kept in one mask alone"
    for own, before in zip(found.pop("losses"), losses, strict=True):
        assert own == pytest.approx(before, rel=SINGLE if float(np.float32(before)) == before else LOSS)
    assert json.loads(json.dumps(found)) == expected


def test_no_preset_is_missing():
    assert {f"{network}/{name}" for network, name in pinned.CASES} == TOLD.keys() - {"shapes"}
