"""What a study holds at once, and what a measurement leaves behind."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import torch

import tombola as tb
from tombola.studies import RunSpec, execution
from tombola.studies.batch_training import Piece
from tombola.testing import toy_task
from tombola.training import step_memory


def test_a_study_holds_the_ticket_of_one_run_at_a_time(tmp_path, monkeypatch):
    """Tickets with values are as large as their networks."""
    task, known, alive = toy_task(epochs=1), [], []

    def watched(*given, train=execution.train, **how):
        known.append(weakref.ref(given[1]))
        gc.collect()
        alive.append(sum(own() is not None for own in known))
        return train(*given, **how)

    monkeypatch.setattr(execution, "train", watched)
    monkeypatch.setattr(execution, "pieces_of", lambda runs: [Piece((run,), (at,)) for at, run in enumerate(runs)])
    specs = [RunSpec(task, tb.method("magnitude-init", density=0.5), seed=seed) for seed in range(3)]
    tb.execute(specs, tb.Store(tmp_path))
    assert alive == [1, 1, 1]


def test_measuring_a_step_leaves_nothing_behind():
    """Many operations, as ReLU, keep their own results for backward."""
    task = toy_task()
    model, batch = task.build(0), next(iter(task.batches("train", 0, 0)))

    def left() -> int:
        """How many tensors there are after the step of a task that was not measured before."""
        other = replace(task, forward=lambda network, inputs: network(inputs).relu().softmax(-1))
        step_memory(other, model, batch, task.recipe)
        del other
        gc.collect()
        return sum(issubclass(type(own), torch.Tensor) for own in gc.get_objects())

    first = left()
    assert left() == first
