"""Distances between a ticket and the dense network while both train."""

from __future__ import annotations

import pytest

import tombola as tb
from tombola.connectivity import training_distances
from tombola.testing import toy_task
from tombola.tickets import Mask, Seed
from tombola.training import Run


def test_the_whole_network_is_at_no_distance_and_a_sparser_ticket_farther_off(tmp_path):
    task = toy_task(epochs=2)
    model = task.build(0)
    start = Seed.of(model, 0)
    whole = tb.Ticket(Mask.full(dict(tb.structure.prunable(model))), start)
    assert training_distances(task, whole) == pytest.approx([0.0, 0.0], abs=1e-6)
    half, tenth = (tb.Ticket(tb.select(tb.scores.magnitude(model), density), start) for density in (0.5, 0.1))
    near, far = training_distances(task, half), training_distances(task, tenth, run=Run(0, tmp_path))
    assert all(0 < one < other < 1 for one, other in zip(near, far, strict=True))
    assert training_distances(task, tenth, run=Run(0, tmp_path)) == far  # read, not trained again
