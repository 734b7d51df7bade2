"""Sparse fine-tuning: only a ticket's weights train, and everything else keeps its values bit for bit."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from test_attach import OPTIMIZERS, loss_of, make_net, mask_of, values_of
from torch import nn, optim

from tombola import EarlyBird, Iterative, Mask, OneShot, Ticket, TombolaError, attach, find, shrink, train
from tombola.errors import DamagedError
from tombola.evidence import Arm
from tombola.shrinking import sparse
from tombola.testing import toy_task
from tombola.tickets import Seed, parameters_of, tensors_of, zeros_of


def assert_only_live_moved(model: nn.Module, before: dict[str, torch.Tensor], mask: Mask) -> None:
    for name, parameter in model.named_parameters():
        kept = mask[name] if name in mask else torch.zeros(parameter.shape, dtype=torch.bool)
        now, then = (tensor.detach().contiguous().view(torch.int32) for tensor in (parameter, before[name]))
        assert torch.equal(now[~kept], then[~kept]), name
        assert not kept.any() or (now != then)[kept].any(), name


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_only_live_weights_move(make):
    model = make_net()
    optimizer, mask = make(model.parameters()), mask_of(model)
    for seed in range(2):  # so that there is momentum
        loss_of(model, seed).backward()
        optimizer.step()
    with torch.no_grad():
        model[5].weight[~mask["5.weight"]] = torch.tensor(-0.0)
    before = values_of(model)
    with attach(mask, model, optimizer, dead="frozen"):
        for seed in range(4):
            optimizer.zero_grad()
            loss_of(model, seed).backward()
            optimizer.step()
            assert_only_live_moved(model, before, mask)
            assert all(
                not state[~mask[name]].any()
                for name in mask
                for state in optimizer.state[model.get_parameter(name)].values()
                if isinstance(state, torch.Tensor) and state.shape == mask[name].shape
            )


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW])
def test_a_live_weight_moves_if_and_only_if_its_gradient_or_decay_is_not_zero(make, decay):
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data.fill_(1.0)
    mask = Mask.of({"weight": torch.tensor([[True, True, False, False]])})
    optimizer = make(layer.parameters(), lr=0.01, weight_decay=decay)
    with attach(mask, layer, optimizer, dead="frozen"):
        layer(torch.tensor([[1.0, 0.0, 1.0, 0.0]])).sum().backward()
        optimizer.step()
    assert (layer.weight[0] != 1).tolist() == [True, decay > 0, False, False]


def test_frozen_weights_are_there_in_closures_under_amp_and_in_half_precision():
    model = make_net()
    mask, before = mask_of(model), values_of(model)
    optimizer = optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    with attach(mask, model, optimizer, dead="frozen"):
        optimizer.step(closure)
        assert_only_live_moved(model, before, mask)
    adam, before = optim.AdamW(model.parameters(), 0.1), values_of(model)
    with attach(mask, model, adam, dead="frozen"):
        for factor in (1.0, torch.inf):
            adam.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(model) * factor
            scaler.scale(loss).backward()
            scaler.step(adam)
            scaler.update()
            assert_only_live_moved(model, before, mask)
        model.bfloat16()
        halved = values_of(model)
        optimizer = optim.SGD(model.parameters(), 0.1)
        with attach(mask, model, optimizer, dead="frozen"):
            model(torch.randn(4, 2, 6, 6, dtype=torch.bfloat16)).sum().backward()
            optimizer.step()
        weight = model[0].weight.detach()
        assert torch.equal(weight[~mask["0.weight"]], halved["0.weight"][~mask["0.weight"]])


def test_an_exchanged_mask_freezes_what_dies_and_trains_what_comes_alive_at_their_present_values():
    model = make_net()
    mask, optimizer = mask_of(model), OPTIMIZERS["adamw"](model.parameters())
    with attach(mask, model, optimizer, dead="frozen") as handle:
        loss_of(model).backward()
        optimizer.step()
        before = values_of(model)
        handle.exchange(~mask)
        assert all(torch.equal(value, before[name]) for name, value in values_of(model).items())
        loss_of(model).backward()
        optimizer.step()
        assert_only_live_moved(model, before, ~mask)


def test_weights_loaded_after_the_mask_was_attached_are_not_mixed_with_the_frozen_ones():
    model, other = make_net(), values_of(make_net())
    other["5.weight"] += 1
    with attach(mask_of(model), model, optim.SGD(model.parameters(), 0.1), dead="frozen"):
        model.load_state_dict(other)
        with pytest.raises(TombolaError, match="changed after the mask was attached, as by load_state_dict"):
            loss_of(model).backward()


def test_training_resumed_from_a_checkpoint_ends_equal():
    def steps(model, optimizer, seeds):
        for seed in seeds:
            optimizer.zero_grad()
            loss_of(model, seed).backward()
            optimizer.step()

    whole, part = make_net(), make_net()
    mask = mask_of(whole)
    one, two = (OPTIMIZERS["momentum"](model.parameters()) for model in (whole, part))
    with attach(mask, whole, one, dead="frozen"):
        steps(whole, one, range(6))
    with attach(mask, part, two, dead="frozen"):
        steps(part, two, range(3))
    saved = copy.deepcopy((part.state_dict(), two.state_dict()))
    again = make_net()
    three = OPTIMIZERS["momentum"](again.parameters())
    with attach(mask, again, three, dead="frozen"):
        again.load_state_dict(saved[0])
        three.load_state_dict(saved[1])
        steps(again, three, range(3, 6))
    assert all(torch.equal(value, values_of(again)[name]) for name, value in values_of(whole).items())


@pytest.mark.parametrize(
    "method", [OneShot(density=0.2), Iterative(density=0.3, count=2), EarlyBird(density=0.5, window=2, epsilon=2)]
)
def test_a_frozen_ticket_of_any_method_is_kept_in_its_file_and_trains_as_it_says(method, tmp_path):
    task = toy_task(epochs=2)
    found = find(task, method, seed=0, progress=False)
    ticket = replace(found, dead="frozen")
    assert ticket.digest != found.digest
    ticket.save(tmp_path / "ticket.safetensors")
    again = Ticket.load(tmp_path / "ticket.safetensors")
    assert again == ticket
    assert again.dead == "frozen"
    model = task.build(0)
    ticket.put_into(model)
    start = tensors_of(model)
    trained = train(task, again, seed=0)
    assert trained.plan is None
    for name, parameter in parameters_of(trained.model).items():
        kept = ticket.mask[name] if name in ticket.mask else torch.zeros(parameter.shape, dtype=torch.bool)
        assert torch.equal(parameter.detach()[~kept], start[name][~kept])
    assert Arm(task, ticket).effective_density(0) == ticket.density
    assert Arm(task, ticket).alive_flops(0) == 1
    for use in (lambda: shrink(trained.model, ticket, example=torch.ones(1)), lambda: sparse(trained.model, ticket)):
        with pytest.raises(TombolaError, match="nothing of the network is zero"):
            use()


def test_what_dead_weights_become_is_one_of_two_words(tmp_path):
    mask = Mask.of({"weight": torch.ones(1, 2)})
    with pytest.raises(TombolaError, match="dead is 'ice'; give 'zero' or 'frozen'"):
        Ticket(mask, Seed(0, ""), dead="ice")
    with pytest.raises(TombolaError, match="dead is 'ice'"):
        attach(mask, nn.Linear(2, 1), dead="ice")
    ticket = Ticket(mask, Seed(0, ""))
    object.__setattr__(ticket, "dead", "ice")
    ticket.save(tmp_path / "t.safetensors")
    with pytest.raises(DamagedError, match="dead"):
        Ticket.load(tmp_path / "t.safetensors")
    assert zeros_of(mask) is mask


def test_tickets_from_before_there_was_a_choice_keep_their_digest():
    assert (
        Ticket(Mask.of({"0.weight": torch.tensor([[True, False], [True, True]])}), Seed(0, "")).digest[:8] == "db35ebf1"
    )
