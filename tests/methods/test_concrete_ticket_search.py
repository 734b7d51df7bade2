"""Concrete Ticket Search, against the figures and formulas of the authors' code in double precision."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

import tombola as tb
from tombola import TombolaError
from tombola.methods.concrete_model import ConcreteModel, Drawn
from tombola.methods.concrete_objectives import Both, Passed, measured
from tombola.methods.concrete_ticket_search import ConcreteTask, DensityControl
from tombola.testing import toy_task
from tombola.tickets import Seed, Values, tensors_of
from tombola.training import Run, Snapshot, State, Step

Search = tb.methods.ConcreteTicketSearch


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def drawn(density: float, temperature: float = 2 / 3, size: int = 400_000) -> torch.Tensor:
    """Many masks at the logit of a density."""
    torch.manual_seed(0)
    phi = torch.full((size,), logit(density), dtype=torch.float64)
    return Drawn.apply(phi, torch.ones_like(phi), torch.empty_like(phi), temperature)


@pytest.mark.parametrize(
    ("density", "mean", "above_half"), [(0.2, 0.325, 0.284), (0.05, 0.171, 0.123), (0.0144, 0.091, 0.056)]
)
def test_masks_are_as_dense_as_the_sheet_measured(density, mean, above_half):
    gate = drawn(density)
    assert float(gate.mean()) == pytest.approx(mean, abs=0.002)
    assert float((gate > 0.5).double().mean()) == pytest.approx(above_half, abs=0.002)
    # In closed form, P(z > ½) = σ(τφ).
    assert above_half == pytest.approx(1 / (1 + math.exp(-2 / 3 * logit(density))), abs=6e-4)


@pytest.mark.parametrize("temperature", [2 / 3, 0.3, 1.0])
def test_the_gradient_of_a_mask_is_that_of_its_formula(temperature):
    phi = torch.randn(50, dtype=torch.float64, requires_grad=True)
    weight, buffer = torch.randn(50, dtype=torch.float64), torch.empty(50, dtype=torch.float64)
    torch.manual_seed(3)
    uniform = torch.empty(50, dtype=torch.float64).uniform_()
    torch.manual_seed(3)
    (Drawn.apply(phi, weight, buffer, temperature) * torch.arange(50.0)).sum().backward()
    same = phi.detach().requires_grad_()
    ((same + (uniform / (1 - uniform)).log() / temperature).sigmoid() * weight * torch.arange(50.0)).sum().backward()
    torch.testing.assert_close(phi.grad, same.grad, rtol=1e-9, atol=1e-12)


def prepared(density: float = 0.2, network=None, **settings) -> tuple[ConcreteModel, DensityControl, State]:
    task, method = toy_task(), Search(density, **settings)
    model = network() if network else task.build(0)
    searched, control = method.prepare(task, model.double())
    recipe = method.search_recipe(task.recipe)
    optimizer = torch.optim.Adam(searched.parameters(), lr=recipe.lr)
    return searched, control, State(searched, optimizer, recipe, 10, 0, 0, tb.attach(tb.Mask({}), nn.Linear(1, 1)))


def sigma(phi: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-phi))


def test_the_balance_is_that_of_the_formula_step_by_step():
    searched, control, state = prepared(0.2)
    generator, balance, size = torch.Generator().manual_seed(1), None, 732
    for step, shift in enumerate([-0.05, 0.6, 0.6, -0.3, 0.9]):
        phi, gradients = [], []
        for score in searched.scores:
            score.data.fill_(logit(0.2)).add_(torch.randn(score.shape, generator=generator).double() * 0.1 + shift)
            score.grad = torch.randn(score.shape, generator=generator).double()
            phi.append(score.detach().numpy().ravel().copy())
            gradients.append(score.grad.numpy().ravel().copy())
        phi, gradient = np.concatenate(phi), np.concatenate(gradients)
        allowed = 1.1 * 0.2 * size
        excess = 100 * (sigma(phi).sum() / allowed - 1)
        slope = 100 / allowed * sigma(phi) * (1 - sigma(phi))
        wanted = np.linalg.norm(gradient) / (np.linalg.norm(slope) + 1e-12) if excess > 0 else 0.0
        balance = wanted if balance is None else 0.99 * balance + 0.01 * wanted
        control.before_step(state)
        found = np.concatenate([score.grad.numpy().ravel() for score in searched.scores])
        np.testing.assert_allclose(found, gradient + balance * slope, rtol=1e-9, err_msg=f"step {step}")


def test_a_search_begins_with_a_tenth_of_slack_and_no_balance():
    searched, control, state = prepared(0.05)
    expected = sum(float(torch.sigmoid(score.detach()).sum()) for score in searched.scores) / 732
    assert expected == pytest.approx(0.05)
    assert 100 * (expected / (1.1 * 0.05) - 1) == pytest.approx(-9.09, abs=0.01)
    for score in searched.scores:
        score.grad = torch.ones_like(score)
    control.before_step(state)
    assert all(torch.equal(score.grad, torch.ones_like(score)) for score in searched.scores)
    assert float(control.state_dict()["weight"]) == 0.0


def test_the_multiplier_rises_with_the_excess_and_is_no_lower_than_0():
    searched, control, state = prepared(0.2, control="multiplier", ascent=0.5)
    for shift, positive in ((1.0, True), (-9.0, True), (-9.0, False)):
        for score in searched.scores:
            score.data.fill_(logit(0.2) + shift)
            score.grad = torch.zeros_like(score)
        before = control.state_dict()["weight"]
        control.before_step(state)
        after = float(control.state_dict()["weight"])
        assert (after > 0) is positive
        excess = 100 * (float(torch.sigmoid(torch.tensor(logit(0.2) + shift))) / 0.2 - 1)
        assert after == pytest.approx(max(0.0, float(before or 0) + 0.1 * 0.5 * excess), rel=1e-6)


def test_counting_masks_begins_where_a_mask_is_above_half_as_often_as_the_density_says():
    searched, _, _ = prepared(0.05, counted="mask")
    assert float(torch.sigmoid(2 / 3 * searched.scores[0].detach()).mean()) == pytest.approx(0.05)


def normed() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 5)
    return nn.Sequential(*layers)


def test_both_passes_are_in_evaluation_mode_with_the_statistics_of_the_batch():
    model = normed()
    searched, _, _ = prepared(0.2, lambda: model)
    searched.train()
    before = {name: value.clone() for name, value in tensors_of(model).items()}
    inputs = torch.randn(30, 1, 8, 8).double()
    hidden = F.linear(inputs.flatten(1), before["1.weight"], before["1.bias"])
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    hidden = F.relu(hidden * before["2.weight"] + before["2.bias"])
    dense = searched.dense(inputs, searched.weights, features=True, differentiable=False)
    torch.testing.assert_close(dense.outputs, F.linear(hidden, before["5.weight"], before["5.bias"]))
    torch.testing.assert_close(dense.features, [hidden])
    assert all(torch.equal(value, before[name]) for name, value in tensors_of(model).items())
    for score in searched.scores:
        score.data.fill_(60.0)  # every mask is 1
    masked = searched.masked(inputs, searched.weights, features=True, differentiable=False)
    torch.testing.assert_close(masked.outputs, dense.outputs)
    assert not torch.equal(model[2].running_mean, before["2.running_mean"])


OBJECTIVES = ["reverse-kl", "kl", "loss-ratio", "gradient-match", "feature-match"]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_is_0_where_nothing_is_masked(objective):
    searched, _, _ = prepared(0.2, normed)
    searched.train()
    for score in searched.scores:
        score.data.fill_(60.0)
    task = ConcreteTask(toy_task(), objective)
    inputs, targets = torch.randn(30, 1, 8, 8).double(), torch.arange(30) % 5
    value = task.loss(task.forward(searched, inputs), targets).detach()
    assert float(value) == pytest.approx(0.0, abs=1e-8)


def test_objectives_are_their_formulas():
    torch.manual_seed(1)
    ours, theirs = torch.randn(7, 4).double(), torch.randn(7, 4).double()
    targets, both = torch.arange(7) % 4, Both(Passed(ours), Passed(theirs))
    p, q = (x.softmax(1).numpy() for x in (ours, theirs))
    expected = {
        "reverse-kl": 100 * (p * np.log(p / q)).sum(1).mean(),
        "kl": 100 * (q * np.log(q / p)).sum(1).mean(),
        "loss": -100 * np.log(p[np.arange(7), targets]).mean(),
        "loss-ratio": 1e4 * abs(np.log(p[np.arange(7), targets]).mean() / np.log(q[np.arange(7), targets]).mean() - 1),
    }
    for objective, value in expected.items():
        assert float(measured(objective, both, targets, F.cross_entropy)) == pytest.approx(value, rel=1e-9)


def test_the_gradients_norm_is_over_the_masked_weights_gradients():
    searched, _, _ = prepared(0.5, normed)
    searched.train()
    inputs, targets = torch.randn(30, 1, 8, 8).double(), torch.arange(30) % 5
    task = ConcreteTask(toy_task(), "gradient-norm")
    torch.manual_seed(5)
    value = task.loss(task.forward(searched, inputs), targets)
    torch.manual_seed(5)
    gates = [torch.sigmoid(score + torch.rand_like(score).logit() / (2 / 3)).detach() for score in searched.scores]
    names = dict(zip(searched.names, gates, strict=True))
    model = searched.called.model
    weights = {name: model.get_parameter(name).detach().requires_grad_() for name in names}
    outputs = functional_call(model, {n: w * names[n] for n, w in weights.items()}, (inputs,))
    gradients = torch.autograd.grad(F.cross_entropy(outputs, targets), list(weights.values()))
    assert float(value.detach()) == pytest.approx(
        -100 * math.sqrt(sum(float(g.square().sum()) for g in gradients)), rel=1e-6
    )
    value.backward()
    assert all(score.grad is not None and score.grad.any() for score in searched.scores)


@pytest.mark.parametrize(("objective", "epochs"), [("loss", 40), ("reverse-kl", 20)])
def test_a_search_ends_within_the_bound_and_keeps_exactly_the_density(objective, epochs):
    run, task = Run(0), toy_task(epochs=epochs)
    ticket = tb.find(task, Search(0.1, objective=objective), run=run)
    rows = [row for row in run.history if row["stage"] == "search"]
    assert rows[-1]["density"] / (1.1 * 0.1) <= 1.02
    assert ticket.mask.total_kept == round(0.1 * 732)
    assert isinstance(ticket.start, Seed)
    rates = [row["lr"] for row in rows]
    assert [index for index, (a, b) in enumerate(pairwise(rates), start=1) if b < a] == [int(0.88 * epochs) - 1]


def test_the_highest_logits_stay_and_the_control_keeps_the_lowest():
    kept = {draw: tb.find(toy_task(), Search(0.2, draw=draw)).mask for draw in ("top", "lowest", "positive")}
    assert kept["top"].total_kept == kept["lowest"].total_kept == round(0.2 * 732)
    assert (kept["top"] & kept["lowest"]).total_kept == 0
    assert kept["positive"] <= kept["top"] or kept["top"] <= kept["positive"]


def test_a_rewound_search_takes_place_at_the_step_that_its_ticket_trains_from():
    task, snapshot = toy_task(epochs=3), Snapshot(Step.parse("7it"))
    Run(0).stage("dense", task, task.build(0), observers=[snapshot])
    run = Run(0)
    ticket = tb.find(task, Search(0.2, rewind="7it"), run=run)
    assert isinstance(ticket.start, Values)
    assert all(torch.equal(value, ticket.start.tensors[name]) for name, value in snapshot.taken.items())
    assert ticket.recipe == {"start": "7it"}
    assert {row["stage"] for row in run.history} == {"dense", "search"}
    assert sum(row["stage"] == "dense" for row in run.history) == 2  # seven steps are one epoch and one step


def test_the_teachers_passes_are_entered_in_the_costs():
    task = toy_task()
    run, bare = Run(0), Run(0)
    tb.find(task, Search(0.2), run=run)
    tb.find(task, Search(0.2, objective="loss"), run=bare)
    assert run.cost.samples_backward == bare.cost.samples_backward
    looked_at = 20  # a batch, for whether the outputs are those of classes
    assert run.cost.samples_forward == bare.cost.samples_forward + bare.cost.samples_backward + looked_at
    assert 1.25 < run.cost.dense_epochs / bare.cost.dense_epochs < 1.5  # a forward pass is about a third of a step


def test_the_search_sees_no_augmentation():
    seen = []

    def forward(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        seen.append(inputs.clone())
        return model(inputs)

    task = replace(toy_task(epochs=1), forward=forward)
    task = replace(task, recipe=replace(task.recipe, augment=("crop", "flip"), channels_last="off"))
    plain = {tuple(x.flatten().tolist()) for x in task.data["train"][0]}
    tb.find(task, Search(0.2))
    trained = [tuple(x.flatten().tolist()) for batch in seen if not batch.is_meta for x in batch]
    # The dense and the masked network see every image as it is.
    assert sum(image in plain for image in trained) >= 2 * len(plain)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"density": 1.0}, "a density of 1 leaves nothing to search"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"slack": -0.1}, "slack is -0.1; give a number at least 0"),
        ({"average": 1.5}, "average is 1.5; give a number from 0 to 1"),
        ({"rewind": "fine-tune"}, "takes init or a step, as 9ep"),
        ({"rewind": "soon"}, "soon"),
        ({"objective": "task"}, "objective"),
        ({"length": 0.0}, "length"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(TombolaError, match=words):
        Search(**settings)


def test_outputs_without_classes_are_refused_before_anything_trains():
    task = toy_task(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 1)))
    task = replace(task, loss=lambda outputs, targets: outputs.mean(), metric=lambda outputs, targets: outputs.mean())
    run = Run(0)
    with pytest.raises(TombolaError, match="objective='loss'"):
        tb.find(task, Search(0.2, rewind="1ep"), run=run)
    assert run.history == []
    tb.find(task, Search(0.2, objective="loss"))
