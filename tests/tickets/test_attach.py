"""Attached masks: dead weights stay exactly zero in anybody's loop, live ones move, and the model stays plain."""

from __future__ import annotations

import copy
import io
import math
import pickle
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim

from tombola import Mask, Ticket, TombolaError, attach
from tombola.structure import prunable
from tombola.tickets import AttachWarning, Seed, attachment, parameters_of
from tombola.tickets.kept_words import zero
from tombola.tickets.step_guard import EVERY

OPTIMIZERS = {
    "sgd": partial(optim.SGD, lr=0.1),
    "momentum": partial(optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": partial(optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "fused sgd": partial(optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1, fused=True),
    "foreach sgd": partial(optim.SGD, lr=0.1, momentum=0.9, foreach=True),
    "adam": partial(optim.Adam, lr=0.01, weight_decay=0.1),
    "amsgrad": partial(optim.Adam, lr=0.01, amsgrad=True),
    "adamw": partial(optim.AdamW, lr=0.01, weight_decay=0.1),
    "fused adamw": partial(optim.AdamW, lr=0.01, weight_decay=0.1, fused=True),
    "rmsprop": partial(optim.RMSprop, lr=0.01, momentum=0.9, centered=True),
    "adagrad": partial(optim.Adagrad, lr=0.1, initial_accumulator_value=0.1),
    "rprop": partial(optim.Rprop, lr=0.01),
}


def make_net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


def mask_of(model: nn.Module, share: float = 0.5) -> Mask:
    generator = torch.Generator().manual_seed(5)
    return Mask.of({n: torch.rand(p.shape, generator=generator) < share for n, p in prunable(model).items()})


def loss_of(model: nn.Module, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(8, 2, 6, 6, generator=generator)
    return F.cross_entropy(model(inputs), torch.randint(5, (8,), generator=generator))


def is_positive_zero(values: torch.Tensor) -> bool:
    return bool((values == 0).all()) and not bool(values.signbit().any())


def assert_dead(mask: Mask, model: nn.Module, optimizer: optim.Optimizer | None = None) -> None:
    """Exactly +0.0 in weights and in every state tensor of their shape."""
    parameters = parameters_of(model)
    for name in mask:
        dead = ~mask[name]
        assert is_positive_zero(parameters[name].detach()[dead]), name
        for key, state in (optimizer.state[parameters[name]] if optimizer else {}).items():
            if isinstance(state, torch.Tensor) and state.shape == dead.shape:
                assert is_positive_zero(state[dead]), (name, key)


def values_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


# Law 3: dead stays dead


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("when", ["from the start", "after dense steps"])
def test_dead_stays_dead(make, when):
    model = make_net()
    optimizer, mask = make(model.parameters()), mask_of(model)
    if when == "after dense steps":
        for seed in range(2):
            optimizer.zero_grad()
            loss_of(model, seed).backward()
            optimizer.step()
    with attach(mask, model, optimizer):
        assert_dead(mask, model, optimizer)
        before = values_of(model)
        for seed in range(4):
            optimizer.zero_grad()
            loss_of(model, seed).backward()
            for name in mask:
                assert is_positive_zero(model.get_parameter(name).grad[~mask[name]])
            optimizer.step()
            assert_dead(mask, model, optimizer)
        for name in mask:
            assert (model.get_parameter(name).detach() != before[name])[mask[name]].any()


KEEPING = {
    "sgd": partial(optim.SGD, momentum=0.9, weight_decay=0.1, nesterov=True),
    "sgd alone": optim.SGD,
    "fused sgd": partial(optim.SGD, momentum=0.9, dampening=0.1, weight_decay=0.1, fused=True),
    "foreach sgd": partial(optim.SGD, momentum=0.9, weight_decay=0.1, foreach=True),
    "adam": partial(optim.Adam, weight_decay=0.1, amsgrad=True),
    "fused adam": partial(optim.Adam, weight_decay=0.1, fused=True),
    "foreach adam": partial(optim.Adam, weight_decay=0.1, foreach=True),
    "adamw": optim.AdamW,
    "fused adamw": partial(optim.AdamW, fused=True, amsgrad=True),
    "nadam": partial(optim.NAdam, weight_decay=0.1, decoupled_weight_decay=True),
    "radam": partial(optim.RAdam, weight_decay=0.1),
    "rmsprop": partial(optim.RMSprop, momentum=0.9, centered=True, weight_decay=0.1),
    "adagrad": partial(optim.Adagrad, initial_accumulator_value=0.1, weight_decay=0.1, lr_decay=0.1),
    "fused adagrad": partial(optim.Adagrad, fused=True),
    "adadelta": partial(optim.Adadelta, weight_decay=0.1),
}


@pytest.mark.parametrize("make", KEEPING.values(), ids=KEEPING)
def test_optimizers_that_keep_zeros_are_spared_a_pass_and_dead_stays_dead(make, monkeypatch):
    """Law 3 by the gradient's mask alone, over more steps than lie between two looks."""
    passes = []
    monkeypatch.setattr(attachment, "zero", lambda pairs: passes.append(len(pairs)) or zero(pairs))
    model = make_net()
    optimizer, mask = make(model.parameters(), lr=0.01), mask_of(model)
    with attach(mask, model, optimizer):
        for seed in range(70):
            optimizer.zero_grad()
            loss_of(model, seed).backward()
            optimizer.step()
        assert_dead(mask, model, optimizer)
    assert len(passes) == 1 + 1 + 1  # when it is attached, after the first step, and at the look


def test_what_moves_dead_weights_is_seen_at_once_or_at_the_next_look():
    model = make_net()
    optimizer, mask = optim.SGD(model.parameters(), lr=0.1, momentum=0.9), mask_of(model)
    weight, dense = model.get_parameter("0.weight"), copy.deepcopy(model.state_dict())
    adding = torch.no_grad()(lambda tensor: tensor.add_(1.0))

    def step(change=lambda: None) -> None:
        optimizer.zero_grad()
        loss_of(model).backward()
        change()
        optimizer.step()

    def many() -> None:
        for _ in range(EVERY):
            step()

    with attach(mask, model, optimizer):
        step()
        for before_backward in (lambda: adding(weight), lambda: model.load_state_dict(dense)):
            before_backward()
            step()
            assert_dead(mask, model, optimizer)
        for after_backward in (
            lambda: adding(weight),
            lambda: adding(weight.grad),
            lambda: setattr(weight, "grad", torch.ones_like(weight)),
            lambda: nn.utils.clip_grad_norm_(model.parameters(), math.nan),
        ):
            step(after_backward)
            assert_dead(mask, model, optimizer)
        step()
        weight.data.add_(1.0)
        with pytest.warns(AttachWarning, match=r"dead weights of '0.weight' were not zero any more"):
            many()
        assert_dead(mask, model, optimizer)


def test_dead_stays_dead_in_lbfgs_with_its_closure():
    model = make_net()
    mask, optimizer = mask_of(model), optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    losses = []

    def closure():
        optimizer.zero_grad()
        assert_dead(mask, model)
        losses.append(loss_of(model))
        losses[-1].backward()
        return losses[-1]

    with attach(mask, model, optimizer):
        first = optimizer.step(closure)
        for _ in range(3):
            optimizer.step(closure)
            assert_dead(mask, model)
    assert first is losses[0]
    assert len(losses) > 4
    assert losses[-1] < losses[0]


class TwoSteps(optim.SGD):
    """Sharpness-aware minimisation: climb along the gradient, take the gradient there, come back, step."""

    def step(self, closure):
        climbed = []
        for parameter in self.param_groups[0]["params"]:
            climbed.append(parameter.grad * (0.5 / parameter.grad.norm()))
            parameter.detach().add_(climbed[-1])
        loss = closure()
        for parameter, climb in zip(self.param_groups[0]["params"], climbed, strict=True):
            parameter.detach().sub_(climb)
        super().step()
        return loss


def test_dead_stays_dead_for_an_optimizer_that_steps_twice():
    model = make_net()
    mask, optimizer = mask_of(model), TwoSteps(model.parameters(), lr=0.1, momentum=0.9)

    def closure():
        assert_dead(mask, model)
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    with attach(mask, model, optimizer):
        for _ in range(3):
            closure()
            assert optimizer.step(closure) is not None
            assert_dead(mask, model, optimizer)


def test_attached_training_is_the_masked_problem():
    """Clipping, accumulation, momentum and decay see live gradients only: equal to masking by hand."""
    attached, by_hand = make_net(), make_net()
    mask = mask_of(attached)
    make = OPTIMIZERS["nesterov"]
    one, two = make(attached.parameters()), make(by_hand.parameters())

    def masked(model: nn.Module, what: str) -> None:
        for name in mask:
            tensor = getattr(model.get_parameter(name), what)
            tensor.copy_(torch.where(mask[name], tensor, 0.0))

    with torch.no_grad():
        masked(by_hand, "data")
    with attach(mask, attached, one):
        for step in range(3):
            for model, optimizer in ((attached, one), (by_hand, two)):
                optimizer.zero_grad()
                for part in range(2):
                    loss_of(model, 2 * step + part).backward()
            masked(by_hand, "grad")
            norms = [nn.utils.clip_grad_norm_(model.parameters(), 0.3) for model in (attached, by_hand)]
            assert torch.equal(*norms)
            one.step()
            two.step()
            with torch.no_grad():
                masked(by_hand, "data")
    assert all(
        torch.equal(a, b) for a, b in zip(values_of(attached).values(), values_of(by_hand).values(), strict=True)
    )


def test_accumulated_gradients_are_sums_of_live_ones():
    model = make_net()
    mask = mask_of(model)
    with attach(mask, model):
        expected = []
        for seed in range(3):
            model.zero_grad()
            loss_of(model.eval(), seed).backward()
            expected.append(model[0].weight.grad.clone())
        model.zero_grad()
        for seed in range(3):
            loss_of(model, seed).backward()
            assert is_positive_zero(model[0].weight.grad[~mask["0.weight"]])
    assert torch.allclose(model[0].weight.grad, sum(expected), atol=1e-6)


@pytest.mark.parametrize("name", ["momentum", "adamw", "fused adamw"])
def test_dead_stays_dead_under_bf16_autocast(name):
    model = make_net()
    mask, optimizer = mask_of(model), OPTIMIZERS[name](model.parameters())
    with attach(mask, model, optimizer):
        for seed in range(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(model, seed)
            loss.backward()
            optimizer.step()
            assert_dead(mask, model, optimizer)


@pytest.mark.parametrize("name", ["momentum", "adamw", "fused adamw"])
def test_dead_stays_dead_when_a_grad_scaler_meets_an_infinite_gradient(name):
    model = make_net()
    mask, optimizer = mask_of(model), OPTIMIZERS[name](model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with attach(mask, model, optimizer):
        for seed in range(4):
            before = values_of(model)
            optimizer.zero_grad()
            loss = loss_of(model, seed) * (math.inf if seed == 1 else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            assert_dead(mask, model, optimizer)
            moved = any(not torch.equal(p.detach(), before[n]) for n, p in model.named_parameters())
            assert moved == (seed != 1)
    assert scaler.get_scale() == 4.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["momentum", "adam", "fused adamw"])
def test_dead_stays_dead_when_gradients_are_not_finite(name, bad):
    model = make_net()
    mask, optimizer = mask_of(model), OPTIMIZERS[name](model.parameters())
    with attach(mask, model, optimizer):
        (loss_of(model) * bad).backward()
        optimizer.step()
        assert_dead(mask, model, optimizer)


def test_negative_zero_nan_and_infinity_at_dead_positions_become_zero():
    model = make_net()
    mask = mask_of(model)
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    loss_of(model).backward()
    optimizer.step()
    for strange in (-0.0, math.nan, -math.inf):
        dead = ~mask["5.weight"]
        for tensor in (model[5].weight.detach(), optimizer.state[model[5].weight]["momentum_buffer"]):
            tensor[dead] = strange
        live = model[5].weight.detach()[~dead].clone()
        attach(mask, model, optimizer).detach()
        assert_dead(mask, model, optimizer)
        assert torch.equal(model[5].weight.detach()[~dead], live)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dead_stays_dead_in_other_precisions(dtype):
    layer = nn.Linear(20, 30).to(dtype)
    optimizer = optim.Adam(layer.parameters(), lr=0.01, weight_decay=0.1)
    mask = mask_of(layer)
    with attach(mask, layer, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.randn(4, 20, dtype=dtype)).square().mean().backward()
            optimizer.step()
            assert_dead(mask, layer, optimizer)


def test_channels_last_weights_die_in_the_same_places():
    trained = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model = make_net().double().to(memory_format=layout)
        mask, optimizer = mask_of(model), optim.AdamW(model.parameters(), lr=0.01)
        with attach(mask, model, optimizer):
            for seed in range(3):
                optimizer.zero_grad()
                inputs = torch.randn(4, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
                model(inputs.to(memory_format=layout)).square().sum().backward()
                optimizer.step()
                assert_dead(mask, model, optimizer)
        trained.append(model[0].weight.detach())
    assert torch.allclose(*trained, atol=1e-9)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.decode(F.relu(self.encode(x)))


@pytest.mark.parametrize("names", [["encode.weight"], ["decode.weight"], ["encode.weight", "decode.weight"]])
def test_a_weight_shared_by_two_layers_has_one_mask(names):
    model = Tied()
    masks = {name: torch.rand(6, 6) < 0.7 for name in names}
    kept = torch.stack(list(masks.values())).all(0)
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    with attach(Mask.of(masks), model, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(5, 6)).square().sum().backward()
            optimizer.step()
            for layer in (model.encode, model.decode):
                assert is_positive_zero(layer.weight.detach()[~kept])
                assert (layer.weight.detach()[kept] != 0).all()


# A mask exchanged for another


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_dead_stays_dead_when_the_mask_is_exchanged(make):
    model = make_net()
    optimizer, mask, other = make(model.parameters()), mask_of(model), mask_of(model).shuffled(0)
    with attach(mask, model, optimizer) as handle:
        for seed in range(2):
            optimizer.zero_grad()
            loss_of(model, seed).backward()
            optimizer.step()
        before = values_of(model)
        handle.exchange(other)
        assert handle.mask == other
        assert_dead(mask & other, model, optimizer)
        for name in mask:
            parameter = model.get_parameter(name)
            assert is_positive_zero(parameter.grad[~(mask & other)[name]])
            assert torch.equal(parameter.detach()[other[name]], before[name][other[name]])
        for seed in range(2):
            optimizer.zero_grad()
            loss_of(model, seed).backward()
            optimizer.step()
            assert_dead(other, model, optimizer)
        for name in other:
            grown = (other - mask)[name]
            assert (model.get_parameter(name).detach()[grown] != 0).any()


def test_dense_gradients_are_there_where_they_are_asked_for_and_nowhere_else():
    model = make_net()
    mask, dense = mask_of(model), copy.deepcopy(model)
    with attach(mask, model) as handle:
        attach(mask, dense).detach()
        loss_of(dense).backward()
        with handle.dense_gradients():
            loss_of(model).backward()
        for name in mask:
            gradient = model.get_parameter(name).grad
            assert torch.equal(gradient, dense.get_parameter(name).grad)
            assert gradient[~mask[name]].any()
        handle.exchange(~mask)
        for name in mask:
            assert is_positive_zero(model.get_parameter(name).grad[mask[name]])
        model.zero_grad()
        loss_of(model).backward()
        for name in mask:
            assert is_positive_zero(model.get_parameter(name).grad[mask[name]])


def test_what_is_held_and_dead_is_zero_and_has_its_start_value_when_it_lives_again():
    model = make_net()
    optimizer, mask, before = OPTIMIZERS["momentum"](model.parameters()), mask_of(model), values_of(model)
    with attach(Ticket(mask, Seed(0, ""), held=("5.weight",)), model, optimizer) as handle:
        assert_dead(mask, model)
        handle.exchange(~mask)
        assert_dead(~mask, model)
        loss_of(model).backward()
        optimizer.step()
        weight = model.get_parameter("5.weight").detach()
        assert torch.equal(weight, torch.where(mask["5.weight"], 0.0, before["5.weight"]))


def test_an_exchanged_mask_counts_for_every_name_of_a_shared_weight():
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    model, kept = nn.Sequential(first, second), torch.eye(3, dtype=torch.bool)
    with attach(Mask.full({"0.weight": (3, 3), "1.weight": (3, 3)}), model) as handle:
        handle.exchange(Mask.of({"0.weight": kept, "1.weight": torch.ones(3, 3)}))
        assert not first.weight.detach()[~kept].any()
        assert first.weight.detach()[kept].all()


def test_a_mask_is_exchanged_only_for_one_of_the_same_parameters():
    model = make_net()
    with attach(mask_of(model), model) as handle, pytest.raises(TombolaError, match="covers other parameters"):
        handle.exchange(Mask.full({"5.weight": (5, 16)}))


# Law 4: live weights move


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW])
def test_a_live_weight_moves_if_and_only_if_its_gradient_or_decay_is_not_zero(make, decay):
    """Defect F2: freezing what is smaller than epsilon freezes every negative weight; zeros are no mask either."""
    layer = nn.Linear(6, 3, bias=False)
    weights = torch.tensor([-1.0, 1.0, -1e-9, 1e-9, 0.0, 0.5]).repeat(3, 1)
    layer.weight.data.copy_(weights)
    inputs = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    inputs[:, 1] = 0.0
    mask = Mask.of({"weight": torch.ones(3, 6, dtype=torch.bool).index_fill(1, torch.tensor([5]), False)})
    optimizer = make(layer.parameters(), lr=0.01, weight_decay=decay)
    with attach(mask, layer, optimizer):
        layer(inputs).sum().backward()
        optimizer.step()
    moved = (layer.weight.detach() != weights).all(0).tolist()
    assert moved == [True, decay > 0, True, True, True, True]
    assert is_positive_zero(layer.weight.detach()[:, 5])


# Held parameters


@pytest.mark.parametrize("name", ["momentum", "nesterov", "adamw", "rmsprop"])
def test_held_parameters_stay_through_decay_and_momentum(name):
    model = make_net()
    optimizer = OPTIMIZERS[name](model.parameters())
    for seed in range(2):
        loss_of(model, seed).backward()
        optimizer.step()
    held = ("1.weight", "1.bias", "5.bias")
    before = values_of(model)
    with attach(Ticket(mask_of(model), Seed(0, ""), held=held), model, optimizer):
        for seed in range(3):
            optimizer.zero_grad()
            loss_of(model, seed).backward()
            optimizer.step()
            assert all(torch.equal(model.get_parameter(n).detach(), before[n]) for n in held)
        assert not torch.equal(model[0].bias.detach(), before["0.bias"])
    optimizer.zero_grad()
    loss_of(model).backward()
    optimizer.step()
    assert all(not torch.equal(model.get_parameter(n).detach(), before[n]) for n in held)


# Law 6: plain modules


def copied(how: str, model: nn.Module) -> nn.Module:
    if how == "deepcopy":
        return copy.deepcopy(model)
    if how == "pickle":
        return pickle.loads(pickle.dumps(model))
    buffer = io.BytesIO()
    torch.save(model, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
@pytest.mark.parametrize("attached", [True, False])
def test_models_copy_as_plain_modules(how, attached):
    """Defect F22: deepcopy after pruning fails."""
    model = make_net()
    keys, size, kind = list(model.state_dict()), len(pickle.dumps(model)), type(model)
    mask, optimizer = mask_of(model), optim.SGD(model.parameters(), 0.1, momentum=0.9)
    handle = attach(mask, model, optimizer)
    loss_of(model).backward()
    optimizer.step()
    optimizer.zero_grad()
    if not attached:
        handle.detach()
    assert list(model.state_dict()) == keys
    assert type(model) is kind
    twin = copied(how, model)
    assert len(pickle.dumps(twin)) < size + 200
    assert list(twin.state_dict()) == keys
    assert torch.equal(loss_of(twin.eval()), loss_of(model.eval()))
    loss_of(twin).backward()
    assert (twin.get_parameter("5.weight").grad[~mask["5.weight"]] != 0).any()
    assert model.get_parameter("5.weight").grad is None
    handle.detach()


@pytest.mark.parametrize("attached", [True, False])
def test_weights_round_trip_through_a_state_dict(attached):
    model = make_net()
    handle = attach(mask_of(model), model)
    if not attached:
        handle.detach()
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    other = make_net()
    other.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(values_of(model).values(), values_of(other).values(), strict=True))


@pytest.mark.parametrize("when", ["attached", "before", "detached"])
def test_averaged_models_work(when):
    model = make_net()
    mask, optimizer = mask_of(model), optim.SGD(model.parameters(), 0.1)
    average = optim.swa_utils.AveragedModel if when == "before" else None
    averaged = average(model) if average else None
    with attach(mask, model, optimizer) as handle:
        if when == "detached":
            handle.detach()
        averaged = averaged or optim.swa_utils.AveragedModel(model, multi_avg_fn=optim.swa_utils.get_ema_multi_avg_fn())
        for seed in range(3):
            optimizer.zero_grad()
            loss_of(model, seed).backward()
            optimizer.step()
            averaged.update_parameters(model)
    if when != "detached":
        assert_dead(mask, averaged.module)
    assert loss_of(averaged).isfinite()


def test_a_compiled_model_is_masked_under_its_own_names():
    model = make_net()
    mask = mask_of(model)
    compiled = torch.compile(model, backend="eager")
    assert all(name.startswith("_orig_mod.") for name, _ in compiled.named_parameters())
    optimizer = optim.AdamW(compiled.parameters(), lr=0.01)
    with attach(mask, compiled, optimizer):
        for seed in range(2):
            optimizer.zero_grad()
            loss_of(compiled, seed).backward()
            assert is_positive_zero(model[5].weight.grad[~mask["5.weight"]])
            optimizer.step()
            assert_dead(mask, model, optimizer)
    loss_of(compiled).backward()
    assert (model[5].weight.grad[~mask["5.weight"]] != 0).any()


# Leaving nothing behind


def hooks_of(model: nn.Module, optimizer: optim.Optimizer) -> int:
    on_parameters = sum(
        len(hooks or ()) for p in model.parameters() for hooks in (p._post_accumulate_grad_hooks, p._backward_hooks)
    )
    on_modules = sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()
    )
    return (
        on_parameters
        + on_modules
        + len(optimizer._optimizer_step_post_hooks)
        + len(optimizer._optimizer_step_pre_hooks)
    )


@pytest.mark.parametrize("how", ["detach", "twice", "with", "error"])
def test_detaching_leaves_no_hook_and_weights_move_again(how):
    model = make_net()
    optimizer = optim.SGD(model.parameters(), 0.1)
    ticket = Ticket(mask_of(model), Seed(0, ""), held=("1.weight",))
    if how == "with":
        with attach(ticket, model, optimizer):
            pass
    elif how == "error":
        with pytest.raises(ZeroDivisionError), attach(ticket, model, optimizer):
            raise ZeroDivisionError
    else:
        handle = attach(ticket, model, optimizer)
        for _ in range(2 if how == "twice" else 1):
            handle.detach()
    assert hooks_of(model, optimizer) == 0
    assert_dead(ticket.mask, model)
    loss_of(model).backward()
    optimizer.step()
    assert (model[5].weight.detach()[~ticket.mask["5.weight"]] != 0).any()


def test_the_optimizers_step_stays_its_own_with_schedulers_and_closures():
    """Defect F18: a wrapped step loses the closure and its __func__."""
    model = make_net()
    optimizer = optim.SGD(model.parameters(), 0.1)
    with attach(mask_of(model), model, optimizer):
        assert optimizer.step.__func__ is optim.SGD.step
        scheduler = optim.lr_scheduler.StepLR(optimizer, 1)

        def closure():
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward()
            return loss

        assert optimizer.step(closure).item() == pytest.approx(loss_of(make_masked()).item())
        scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([0.01])


def make_masked() -> nn.Module:
    model = make_net()
    attach(mask_of(model), model).detach()
    return model


def test_other_step_hooks_run_beside_an_attached_mask():
    model, calls = make_net(), []
    optimizer = optim.SGD(model.parameters(), 0.1)
    optimizer.register_step_post_hook(lambda *_: calls.append("before"))
    with attach(mask_of(model), model, optimizer):
        optimizer.register_step_post_hook(lambda *_: calls.append("after"))
        for _ in range(2):
            loss_of(model).backward()
            optimizer.step()
    assert calls == ["before", "after"] * 2


def test_a_mask_follows_another_on_the_same_model():
    model = make_net()
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    first = mask_of(model, 0.7)
    second = first & mask_of(model, 0.3)
    for mask in (first, second):
        with attach(mask, model, optimizer):
            loss_of(model).backward()
            optimizer.step()
            assert_dead(mask, model, optimizer)


def test_optimizer_state_that_is_loaded_while_attached_is_dead_after_the_next_step():
    model = make_net()
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    loss_of(model).backward()
    optimizer.step()
    dense, mask = copy.deepcopy(optimizer.state_dict()), mask_of(model)
    with attach(mask, model, optimizer):
        optimizer.load_state_dict(dense)
        loss_of(model).backward()
        optimizer.step()
        assert_dead(mask, model, optimizer)


# Refusals


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda net: nn.Sequential(nn.Conv2d(2, 5, 3), *list(net)[1:]), r"'0\.weight' is \(5, 2, 3, 3\) in this model"),
        (lambda net: nn.Sequential(*list(net)[:5]), r"'5\.weight' is missing in this model"),
    ],
)
def test_a_model_that_the_mask_cannot_follow_is_refused(change, says):
    net = make_net()
    model = change(net)
    before = values_of(model)
    with pytest.raises(TombolaError, match=says):
        attach(mask_of(net), model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_optimizer_in_backward_is_refused():
    model = make_net()
    model[5].weight.register_post_accumulate_grad_hook(lambda parameter: None)
    with pytest.raises(TombolaError, match=r"'5\.weight' already has a hook"):
        attach(mask_of(model), model)


def test_an_optimizer_of_another_model_is_refused():
    model = make_net()
    with pytest.raises(TombolaError, match="none of this model's parameters"):
        attach(mask_of(model), model, optim.SGD(make_net().parameters(), 0.1))


def test_sparse_gradients_are_refused():
    embedding = nn.Embedding(5, 3, sparse=True)
    with (
        attach(Mask.of({"weight": torch.ones(5, 3) > 0}), embedding),
        pytest.raises(TombolaError, match="sparse=False"),
    ):
        embedding(torch.tensor([1, 2])).sum().backward()


@pytest.mark.parametrize("when", ["from the start", "after dense steps"])
def test_factored_optimizer_state_is_left_and_said_so(when):
    model = make_net()
    optimizer = optim.Adafactor(model.parameters(), lr=0.01)
    if when == "after dense steps":
        loss_of(model).backward()
        optimizer.step()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with attach(mask_of(model), model, optimizer):
            for _ in range(2):
                loss_of(model).backward()
                optimizer.step()
                assert_dead(mask_of(model), model)
    assert [(own.category, "row_var" in str(own.message)) for own in caught] == [(AttachWarning, True)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()


def test_dead_weights_that_something_else_moved_are_told_at_the_end():
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    mask, optimizer = mask_of(model), torch.optim.SGD(model.parameters(), 0.1)
    dense = copy.deepcopy(model.state_dict())
    told = "dead weights of 'weight' are not zero as the mask is detached"
    with pytest.warns(AttachWarning, match=told), attach(mask, model, optimizer):
        model.load_state_dict(dense)
    with attach(mask, model, optimizer):
        model.load_state_dict(dense)
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
    with attach(mask, model, optimizer, dead="frozen"):
        pass


def test_weights_of_inference_mode_are_refused():
    with torch.inference_mode():
        model = nn.Linear(4, 3)
    with pytest.raises(TombolaError, match="'weight' was made in inference mode"):
        attach(Mask.of({"weight": torch.ones(3, 4) > 0}), model)
