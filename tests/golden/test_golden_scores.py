"""Scores are the numbers that they were at commit 3f24205."""

from __future__ import annotations

import json

import numpy as np
import pinned
import pytest

TOLD = json.loads((pinned.DATA / "scores.json").read_text())
NUMBERS = np.load(pinned.DATA / "scores.npz")


@pytest.mark.parametrize(("network", "name", "masked"), pinned.SCORED)
def test_a_score_is_what_it_was(network, name, masked):
    key = f"{network}/{name}/{'masked' if masked else 'whole'}"
    found = pinned.scored(network, name, masked)
    if "refusal" in TOLD[key]:
        assert found == TOLD[key]["refusal"]
        return
    assert not isinstance(found, str), found
    shapes = pinned.shapes_of(found)
    assert list(shapes.items()) == list(TOLD["shapes"][TOLD[key]["shapes"]].items())
    expected, tolerance = NUMBERS[key], pinned.TOLERANCES.get(name, 1e-12)
    for tensor, own in pinned.summary(found).items():
        before, expected = expected[: len(own)], expected[len(own) :]
        near = tolerance * np.maximum(np.abs(before), np.abs(before[:-2]).max())
        assert (np.abs(own - before) <= near).all(), f"'{tensor}' is off by {np.abs(own - before).max()}"
    assert len(expected) == 0


def test_no_score_is_missing():
    keys = {f"{network}/{name}/{'masked' if masked else 'whole'}" for network, name, masked in pinned.SCORED}
    assert keys == TOLD.keys() - {"shapes"}
