"""HAM: a multiplicative step after an optimizer's own, against its formula in double precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import tombola as tb
from tombola import TombolaError
from tombola.methods.masked_model import score_recipe
from tombola.testing import toy_task
from tombola.training import Member, identity, train_together
from tombola.training.hyperbolic import ham

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.05),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_step_is_the_optimizers_own_times_the_exponential(name):
    torch.manual_seed(0)
    layer = nn.Linear(5, 4).double()
    layer.weight.data[0] = 0.0
    optimizer, alpha, beta = ham(OPTIMIZERS[name](layer.parameters()), 3.0, 0.02), 3.0, 0.02
    twin = nn.Linear(5, 4).double()
    twin.load_state_dict(layer.state_dict())
    plain = OPTIMIZERS[name](twin.parameters())
    for step in range(4):
        for own, other in zip(layer.parameters(), twin.parameters(), strict=True):
            own.grad = torch.randn_like(own)
            if own.ndim == 2:
                own.grad[0] = 0.0  # of a mask's dead row
            other.grad = own.grad.clone()
        optimizer.step()
        plain.step()
        weight, gradient = twin.weight.detach().numpy(), twin.weight.grad.numpy()
        rate = plain.param_groups[0]["lr"]
        weight *= np.exp(np.clip(rate * (-alpha * np.sign(weight) * gradient - beta), -5, 5))  # the twin's own memory
        np.testing.assert_allclose(layer.weight.detach().numpy(), weight, rtol=1e-12, err_msg=f"step {step}")
        assert torch.equal(layer.bias, twin.bias)
        assert not layer.weight[0].any()


def test_the_exponent_and_the_norm_are_bounded_and_no_weight_crosses_0():
    weight = nn.Parameter(torch.tensor([[1.0, -1.0, 2.0, 0.0]], dtype=torch.float64))
    optimizer = ham(torch.optim.SGD([weight], lr=1e-15), alpha=1e18, beta=0.0)
    weight.grad = torch.tensor([[1.0, 1.0, -1.0, 0.0]], dtype=torch.float64)
    optimizer.step()
    grown = np.array([np.exp(-5), -np.exp(5), 2 * np.exp(5), 0.0])
    np.testing.assert_allclose(weight.detach().numpy()[0], grown, rtol=1e-6)
    for _ in range(3):
        optimizer.step()
    assert float(weight.detach().norm()) == pytest.approx(1000.0, rel=1e-6)
    assert weight.detach().sign().tolist() == [[1.0, -1.0, 1.0, 0.0]]


def test_without_alpha_and_gradient_it_decays_alone():
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = ham(torch.optim.SGD([weight], lr=0.5), alpha=0.0, beta=0.1)
    weight.grad = torch.zeros(2, 2)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), float(np.exp(-0.05))))


def test_a_recipe_asks_for_it_for_dense_networks_tickets_and_own_optimizers_alike():
    task = toy_task(epochs=2)
    with_ham = replace(task, recipe=replace(task.recipe, ham_alpha=20.0, ham_beta=1e-3))
    own = replace(
        with_ham, optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=task.recipe.lr, momentum=0.9)
    )
    ticket = tb.find(task, tb.OneShot(0.3), seed=0)
    for subject in (None, ticket):
        values = [dict(tb.train(own_task, subject, seed=0).model.named_parameters()) for own_task in (task, with_ham)]
        assert not torch.equal(values[0]["3.weight"], values[1]["3.weight"])
    trained = tb.train(with_ham, ticket, seed=0).model
    assert all(not own[~ticket.mask[n]].any() for n, own in trained.named_parameters() if n in ticket.mask)
    assert tb.train(own, None, seed=0).loss != tb.train(replace(own, recipe=task.recipe), None, seed=0).loss


def test_it_is_for_weights_and_not_for_scores_and_earlier_recipes_keep_their_names():
    recipe = tb.Recipe(ham_alpha=200.0)
    assert score_recipe(recipe, 1.0, "adam", 0.1).ham_alpha == 0
    assert "ham_alpha" not in identity(tb.Recipe())
    assert identity(recipe)["ham_alpha"] == 200
    task = replace(toy_task(), recipe=replace(toy_task().recipe, ham_alpha=5.0))
    with pytest.raises(TombolaError, match="without options or HAM"):
        tb.find(task, tb.methods.ContinuousSparsification(density=0.3))


def test_networks_together_say_that_they_train_alone():
    task = toy_task(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), epochs=1)
    task = replace(task, recipe=replace(task.recipe, ham_beta=1e-3))
    results = train_together(task, [Member(seed=0), Member(seed=1)])
    assert {result.together for result in results} == {1}
    assert "HAM" in results[0].alone


@pytest.mark.parametrize("settings", [{"alpha": -1.0}, {"beta": float("nan")}, {"alpha": float("inf")}])
def test_numbers_that_cannot_be_are_refused(settings):
    with pytest.raises(TombolaError, match="HAM's"):
        ham(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), **settings)
