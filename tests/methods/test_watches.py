"""Masks that move in anybody's loop: as in Tombola's own, whatever the optimizers, and over a kill."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from tombola.methods import Gradual, RigL, SearchWarning
from tombola.testing import toy_network, toy_task
from tombola.training.randomness import own_randomness, seed_everything

EPOCHS, STEPS = 4, 24
RECIPE = tb.Recipe(epochs=EPOCHS, batch=20, lr=0.05, momentum=0.9, weight_decay=0.01, precision="float32")
TASK = replace(toy_task(), recipe=RECIPE)
GRADUAL, RIGL = Gradual(density=0.1, count=6), RigL(density=0.3, every="3it")
SET = replace(RIGL, grow="random")
MOVING = pytest.mark.parametrize("method", [GRADUAL, RIGL, SET], ids=["gradual", "rigl", "set"])


def dead(model, optimizer, mask):
    """Whether all that the mask removes is exactly zero, in weights and optimizer state."""
    named = dict(model.named_parameters())
    states = [
        (name, t) for name in mask for t in optimizer.state[named[name]].values() if torch.is_tensor(t) and t.ndim
    ]
    return not any(t[~mask[name]].any() for name, t in [*states, *((name, named[name].detach()) for name in mask)])


def train(model, optimizer, watch, steps=STEPS, first=0, micro=1, scaler=None, batch=10):
    """A loop of somebody's own: `micro` backward passes a step; what the mask was after each step."""
    inputs, targets = TASK.data["train"]
    masks = []
    for step in range(first, steps):
        at = torch.arange(step * batch, (step + 1) * batch) % len(targets)
        for part in at.chunk(micro):
            loss = F.cross_entropy(model(inputs[part]), targets[part]) / micro
            (scaler.scale(loss) if scaler else loss).backward()
        if scaler:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        optimizer.zero_grad()
        masks.append(watch.ticket.mask)
        assert dead(model, optimizer, masks[-1])
    return masks


def plain():
    model = TASK.build(0)
    model[7].p = 0.0
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def started(method):
    model, optimizer = plain()
    return model, optimizer, method.watch(model, optimizer, steps=STEPS)


@MOVING
@pytest.mark.parametrize("rewind", ["end", pytest.param("init", marks=pytest.mark.slow)])
def test_the_ticket_is_that_of_find_where_the_loop_is_the_same(method, rewind):
    method = replace(method, rewind=rewind)
    found = tb.find(TASK, method)
    model = TASK.build(0).to(memory_format=torch.channels_last)
    optimizer = RECIPE.make_optimizer(model.parameters())
    watch, step = method.watch(model, optimizer, steps=STEPS), 0
    with own_randomness(torch.device("cpu"), 0):
        for epoch in range(EPOCHS):
            seed_everything(0, epoch)
            model.train()
            for inputs, targets in TASK.batches("train", 0, epoch):
                loss = F.cross_entropy(model(inputs.to(memory_format=torch.channels_last)), targets)
                optimizer.zero_grad()
                loss.backward()
                for group in optimizer.param_groups:
                    group["lr"] = RECIPE.lr_at(step, STEPS // EPOCHS)
                optimizer.step()
                step += 1
            assert not watch.epoch_end()
    assert watch.finished
    assert watch.ticket.mask == found.mask
    if rewind == "end":
        assert watch.ticket.start.digest == found.start.digest
        assert watch.ticket.start.epochs_spent == EPOCHS
    else:
        assert watch.ticket.start.digest == tb.tickets.digest_of(tb.tickets.tensors_of(TASK.build(0)))


def saved(model, optimizer, watch):
    return copy.deepcopy([one.state_dict() for one in (model, optimizer, watch)])


@MOVING
@pytest.mark.parametrize("order", ["watch last", "watch first", "made last"])
@pytest.mark.parametrize("at", [pytest.param(3, marks=pytest.mark.slow), 4, pytest.param(7, marks=pytest.mark.slow)])
def test_a_killed_search_ends_as_the_undisturbed_one_in_whatever_order_its_state_is_loaded(method, order, at):
    model, optimizer, watch = started(method)
    masks = train(model, optimizer, watch)
    killed = started(method)
    train(*killed, steps=at)
    states = saved(*killed)
    other, second = plain()
    if order == "made last":
        other.load_state_dict(states[0])
        second.load_state_dict(states[1])
    again = method.watch(other, second, steps=STEPS)
    if order == "watch first":
        again.load_state_dict(states[2])
    if order != "made last":
        other.load_state_dict(states[0])
        second.load_state_dict(states[1])
    if order != "watch first":
        again.load_state_dict(states[2])
    assert all(torch.equal(t, states[0][name]) for name, t in other.state_dict().items())
    assert train(other, second, again, first=at) == masks[at:]
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in other.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {}, "this is not the state of such a watch"),
        (lambda state: state | {"steps": 7}, "began with steps=7"),
        (lambda state: state | {"settings": "other"}, "other settings"),
        (lambda state: state | {"moving": {"mask": {"0.weight": torch.ones(2, 2)}}}, "of another network"),
    ],
)
def test_the_state_of_something_else_is_refused(change, message):
    *_, watch = started(RIGL)
    mask = watch.ticket.mask
    with pytest.raises(tb.TombolaError, match=message):
        watch.load_state_dict(change(watch.state_dict()))
    assert watch.ticket.mask == mask


def test_accumulated_gradients_move_the_mask_once_a_step_and_are_dense_before_it():
    model, optimizer, watch = started(RIGL)
    masks = train(model, optimizer, watch, micro=4)
    changes = [step for step in range(1, STEPS) if masks[step] != masks[step - 1]]
    assert changes == [3, 6, 9, 12, 15]
    assert masks[0].counts == masks[-1].counts


def test_a_step_that_a_scaler_skips_is_none():
    torch.manual_seed(0)
    model, optimizer, watch = started(RIGL)
    first = watch.ticket.mask
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    train(model, optimizer, watch, steps=3, scaler=scaler)
    model[0].weight.grad = torch.full_like(model[0].weight, torch.inf)
    scaler.scale(F.cross_entropy(model(TASK.data["train"][0]), TASK.data["train"][1])).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    assert watch.ticket.mask == first
    assert train(model, optimizer, watch, first=3, steps=4, scaler=scaler)[0] != first


def test_closures_move_the_mask_once():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    inputs = torch.randn(30, 6, dtype=torch.double)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    watch = RigL(density=0.4, every="2it").watch(model, optimizer, steps=12)
    kept, counts = [], watch.ticket.mask.counts

    def closure():
        optimizer.zero_grad()
        loss = (model(inputs) - inputs.sum(1, keepdim=True).sin()).square().mean()
        loss.backward()
        return loss

    for _ in range(12):
        optimizer.step(closure)
        kept.append(watch.ticket.mask)
        assert kept[-1].counts == counts
        assert not any(dict(model.named_parameters())[name][~kept[-1][name]].any() for name in counts)
    assert [step for step in range(1, 12) if kept[step] != kept[step - 1]] == [2, 4, 6]


@MOVING
def test_of_several_optimizers_the_first_that_holds_a_masked_parameter_counts(method):
    model = TASK.build(0)
    optimizers = {
        "norms": torch.optim.SGD([model[1].weight, model[1].bias, model[4].weight, model[4].bias], lr=0.1),
        "matrices": torch.optim.SGD([model[0].weight, model[3].weight], lr=0.05, momentum=0.9),
        "last": torch.optim.AdamW([model[0].bias, *model[8].parameters()], lr=0.01),
    }
    watch = method.watch(model, optimizers, steps=STEPS)
    inputs, targets = TASK.data["train"]
    for _ in range(STEPS):
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        for optimizer in optimizers.values():
            optimizer.step()
        mask = watch.ticket.mask
        assert not any(model.get_parameter(name)[~mask[name]].any() for name in mask)
    assert watch.finished
    assert mask.total_kept == round(method.density * mask.size)


@MOVING
def test_detaching_leaves_a_plain_sparse_module(method):
    model, optimizer, watch = started(method)
    train(model, optimizer, watch)
    mask = watch.ticket.mask
    watch.detach()
    watch.detach()
    assert not model[3].weight[~mask["3.weight"]].any()
    copy.deepcopy(model)
    step = watch.state_dict()["step"]
    F.cross_entropy(model(TASK.data["train"][0]), TASK.data["train"][1]).backward()
    assert model[3].weight.grad[~mask["3.weight"]].any()
    optimizer.step()
    assert watch.state_dict()["step"] == step


def test_what_cannot_be_watched_is_one_sentence():
    model, optimizer = plain()
    other = torch.optim.SGD(toy_network().parameters(), lr=0.1)
    for steps in (0, 1.5, None, True):
        with pytest.raises(tb.TombolaError, match="how many optimizer steps"):
            GRADUAL.watch(model, optimizer, steps=steps)
    with pytest.raises(tb.TombolaError, match="holds none of this model's parameters"):
        RIGL.watch(model, other, steps=9)
    with pytest.raises(tb.TombolaError, match="counted, not epochs"):
        RigL(every="1ep").watch(model, optimizer, steps=9)
    with pytest.warns(SearchWarning, match="the mask stays as it was drawn"):
        RigL(density=0.3).watch(model, optimizer, steps=9)


def test_channels_go_whole_in_anybodys_loop():
    method = Gradual(density=0.5, granularity=tb.Channels(), count=3, floor=1)
    model, optimizer = plain()
    watch = method.watch(model, optimizer, steps=STEPS, example=TASK.data["train"][0][:2])
    train(model, optimizer, watch)
    assert sum(len(units) for units in watch.ticket.removed.values()) == 5
    watch.detach()
    assert tb.shrink(model, watch.ticket, example=TASK.data["train"][0][:2]) is not None


@pytest.mark.parametrize(
    "rewind",
    [pytest.param("init", marks=pytest.mark.slow), "3it", pytest.param("learning-rate", marks=pytest.mark.slow)],
)
def test_rounds_that_are_kept_in_a_folder_go_on_after_a_kill(rewind, tmp_path):
    method = tb.Iterative(density=0.2, count=2, rewind=rewind)

    def one(own, checkpoint=None, steps=9):
        model = own.model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        first = 0
        handle = own.attach(optimizer)
        if checkpoint is not None:
            model.load_state_dict(checkpoint[0])
            optimizer.load_state_dict(checkpoint[1])
            own.load_state_dict(checkpoint[2])
            first = checkpoint[3]
        inputs, targets = TASK.data["train"]
        with handle:
            for _ in range(first, steps):
                optimizer.zero_grad()
                F.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
            return copy.deepcopy([model.state_dict(), optimizer.state_dict(), own.state_dict(), steps])

    whole, tickets = plain()[0], []
    for own in method.rounds(whole):
        one(own)
        tickets.append(own.ticket)
    for killed_in, at in ((0, 2), (0, 5), (1, 5)):
        folder = tmp_path / f"{killed_in}-{at}"
        for own in method.rounds(plain()[0], folder=folder):
            if own.index == killed_in:
                checkpoint = one(own, steps=at)
                break
            one(own)
        torch.manual_seed(9)
        other = toy_network()  # the program does not even seed its network
        other[7].p = 0.0
        ended = []
        for own in method.rounds(other, folder=folder):
            one(own, checkpoint if own.index == killed_in else None)
            ended.append(own.ticket)
        assert [ticket.digest for ticket in ended] == [ticket.digest for ticket in tickets[killed_in:]]
        assert all(torch.equal(t, whole.state_dict()[name]) for name, t in other.state_dict().items())


def test_a_folder_with_rounds_of_something_else_is_refused(tmp_path):
    method = tb.Iterative(density=0.2, count=2)
    own = next(method.rounds(plain()[0], folder=tmp_path))
    with pytest.raises(tb.TombolaError, match="holds rounds with other settings"):
        next(replace(method, density=0.3).rounds(plain()[0], folder=tmp_path))
    with pytest.raises(tb.TombolaError, match="another architecture"):
        next(method.rounds(nn.Linear(2, 1), folder=tmp_path))
    with pytest.raises(tb.TombolaError, match="state of round 4, and round 0"):
        own.load_state_dict(own.state_dict() | {"index": 4})
    with pytest.raises(tb.TombolaError, match="not the state of a round"):
        own.load_state_dict({})
