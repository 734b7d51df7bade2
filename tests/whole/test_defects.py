"""Defects that the field's tools had, and that would be seen here; the others stand beside what they concern."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

import tombola as tb
from kinds import WEIGHT_SCORES
from tombola.methods.density_schedule import densities
from tombola.registry import METHODS
from tombola.structure import Weights
from tombola.studies import Engine
from tombola.testing import toy_task


def test_even_random_pruning_keeps_the_density_and_not_the_sparsity_in_every_layer():
    ticket = tb.find(toy_task(), tb.method("random", density=0.25))
    assert ticket.mask.counts == {"0.weight": 9, "3.weight": 54, "8.weight": 120}


def _odd_convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 8, 3, groups=4, dilation=2, padding=2),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )


def test_grouped_dilated_and_transposed_layers_stay_what_they_are_and_keep_their_weights():
    task = toy_task(_odd_convolutions)
    model = task.build(0)
    before = [(type(m), repr(m)) for m in model.modules()]
    size = sum(p.numel() for p in tb.structure.prunable(model).values())
    with tb.attach(tb.select(tb.scores.magnitude(model), 1.0), model):
        assert [(type(m), repr(m)) for m in model.modules()] == before
        same = task.build(0).state_dict()
        assert all(torch.equal(value, same[name]) for name, value in model.state_dict().items())
    assert size == 4 * 9 + 8 * 9 + 8 * 4 * 4 + 20
    for score in WEIGHT_SCORES.values():
        tb.find(task, tb.OneShot(density=0.5, score=score))


@pytest.mark.parametrize("schedule", ["exponential", "linear", "cubic"])
@pytest.mark.parametrize(("final", "rounds"), [(0.1, 1), (0.1, 7), (0.9, 3), (0.02, 100)])
def test_every_schedule_falls_all_the_way_and_ends_exactly_at_the_density(schedule, final, rounds):
    levels = densities(final, rounds, schedule)
    assert len(levels) == rounds
    assert levels[-1] == final
    assert all(later < earlier for earlier, later in zip([1.0, *levels], levels, strict=False))


def test_nineteen_rounds_of_a_fifth_are_the_papers_1_44_percent():
    units = Weights().units(nn.Linear(1, 1), lambda model: None)
    assert len(tb.Iterative(density=0.0144).levels(units)) == 19
    assert len(tb.Iterative(density=0.8).levels(units)) == 1
    assert len(tb.Iterative(density=0.107).levels(units)) == 10


def test_no_default_is_mutable():
    objects = [preset for preset in METHODS.values()] + list(WEIGHT_SCORES.values())
    assert all(hash(own) is not None for own in objects)
    for function in (tb.find, tb.train, tb.check, tb.compare, tb.select, tb.attach, Engine, tb.SupervisedTask):
        defaults = [parameter.default for parameter in inspect.signature(function).parameters.values()]
        assert not any(isinstance(default, dict | list | set) for default in defaults)
    first, second = (
        tb.SupervisedTask(
            nn.Identity, {"train": (torch.ones(4), torch.ones(4)), "test": (torch.ones(4), torch.ones(4))}
        )
        for _ in range(2)
    )
    assert first.labels is not second.labels


def test_a_searched_ticket_is_not_the_dense_mask_and_starts_from_initial_weights():
    task = toy_task()
    ticket = tb.find(task, tb.method("imp", density=0.5))
    model = task.build(0)
    ticket.put_into(model)
    assert ticket.mask.density == 0.5
    assert all(torch.equal(value, task.build(0).state_dict()[name]) for name, value in model.state_dict().items())
