"""Every method, score, granularity and control on a device whose tensors may not meet those of the CPU."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import tombola as tb
from kinds import WEIGHT_SCORES
from networks import short_network, short_resnet, short_transformer
from pretended_device import NAME, pretended_device
from tombola import zoo
from tombola.registry import CONTROLS, METHODS, SCORES
from tombola.robust import Robustness
from tombola.structure import granularity
from tombola.testing import check_method, check_score, toy_network, toy_task
from tombola.training import Member, Run, SampleFlops, placement, step_memory, train_together

pytestmark = [
    pytest.mark.filterwarnings("ignore::tombola.methods.SearchWarning"),
    pytest.mark.filterwarnings("ignore::tombola.tickets.TieWarning"),
    pytest.mark.filterwarnings("ignore::tombola.shrinking.ShrinkWarning"),
]
QUICK = ("gem-miner", "early-bird", "rigl")
"""One of each kind of search; the others are slow ones."""
tiny_two_layer = partial(zoo.MODELS["two-layer"], (1, 8, 8), 5, 0.05)


def flat_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))


@pytest.fixture
def device():
    with pretended_device() as device:
        yield device


def brief_task(network, batch: int = 60):
    task = toy_task(network, epochs=1)
    return replace(task, recipe=replace(task.recipe, batch=batch))


def network_for(method: str):
    networks = {"layer-": short_resnet, "filter-": short_resnet, "-transformer": short_transformer}
    networks |= {"greedy-neurons": tiny_two_layer, "grasp-it": toy_network}
    return next((own for part, own in networks.items() if part in method), short_network)


def quick_first(names, quick):
    return [pytest.param(name, marks=[] if name in quick else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", quick_first(METHODS, QUICK))
def test_a_search_there_finds_the_ticket_of_the_cpu_which_trains_there(device, name):
    task, method = brief_task(network_for(name)), tb.method(name, density=0.3)
    ticket = tb.find(task, method, device=NAME)
    assert ticket.mask == tb.find(task, method, device="cpu").mask
    trained = tb.train(task, ticket, device=NAME)
    assert next(trained.model.parameters()).device.type == NAME


@pytest.mark.parametrize("name", quick_first(("weight", "2:4", "channel", "head", "neuron", "query-key"), ("channel",)))
def test_what_is_removed_whole_there_is_cut_out_there(device, name):
    task = brief_task(toy_network if name in ("weight", "2:4", "channel") else short_transformer)
    method = tb.OneShot(density=0.5, granularity=granularity(name), floor=1)
    ticket = tb.find(task, method, device=NAME)
    assert ticket.digest == tb.find(task, method, device="cpu").digest
    model = task.build(0).to(NAME)
    optimizer = torch.optim.Adam(model.parameters())
    inputs, targets = next(iter(task.batches("train", 0, 0)))
    inputs, targets = inputs.to(NAME), targets.to(NAME)
    with tb.attach(ticket, model, optimizer):
        task.loss(model(inputs), targets).backward()
        optimizer.step()
    small = tb.shrink(model, ticket, optimizer=optimizer, example=inputs[:4])
    task.loss(small(inputs), targets).backward()
    optimizer.step()
    assert {p.device.type for p in small.parameters()} == {NAME}


@pytest.mark.parametrize("name", quick_first(WEIGHT_SCORES, ("magnitude",)))
def test_every_score_keeps_the_laws_there(device, name):
    check_score(WEIGHT_SCORES[name], device=NAME)


def test_a_method_keeps_the_laws_there(device):
    check_method(tb.OneShot(density=0.5), flat_network, device=NAME)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_laws_of_all_methods_there(device, name):
    check_method(tb.method(name, density=0.3), network_for(name), device=NAME)


WHOLE_UNITS = ("scratch-e", "scratch-b")
IN_STUDIES = [name for name in CONTROLS if name not in (*WHOLE_UNITS, "narrow")]


@pytest.mark.parametrize("name", quick_first(IN_STUDIES, ("shuffle",)))
def test_every_control_is_made_and_trained_there(device, name):
    study = tb.compare(brief_task(short_network), [tb.OneShot(density=0.3)], seeds=1, controls=[name], device=NAME)
    assert {result.settings["device"] for result in study.results} == {NAME}


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE_UNITS)
def test_controls_of_whole_units_there(device, name):
    method = tb.OneShot(density=0.5, granularity=tb.Channels(), floor=1)
    tb.compare(brief_task(toy_network), [method], seeds=1, controls=[name], device=NAME)


@pytest.mark.slow
def test_robustness_is_measured_where_the_network_is(device):
    task = brief_task(short_network)
    measures = Robustness(epsilons=(0.03,), steps=1, samples=20, corruptions="none").measure(
        task, task.build(0).to(NAME)
    )
    assert 0 <= measures["FGSM 0.03"] <= 1


def test_networks_train_at_once_there(device):
    task = brief_task(flat_network)
    ticket = tb.find(task, tb.OneShot(density=0.3), device=NAME)
    together = train_together(task, [Member(0, ticket), Member(1, ticket)], device=NAME)
    alone = [tb.train(task, ticket, seed=seed, device=NAME).loss for seed in (0, 1)]
    assert [result.loss for result in together] == pytest.approx(alone, rel=1e-4)


def test_ones_own_loop_there(device):
    task, model = brief_task(toy_network), toy_network().to(NAME)

    def epoch(optimizer: torch.optim.Optimizer) -> None:
        for inputs, targets in task.batches("train", 0, 0):
            optimizer.zero_grad()
            task.loss(model(inputs.to(NAME)), targets.to(NAME)).backward()
            optimizer.step()

    for one in tb.Iterative(density=0.3, count=1).rounds(model):
        with one.attach(optimizer := torch.optim.SGD(model.parameters(), 0.1)):
            epoch(optimizer)
    watch = tb.EarlyBird(density=0.5, epsilon=1.0, window=2).watch(model, optimizer)
    for _ in range(4):
        epoch(optimizer)
        watch.load_state_dict(watch.state_dict())
        if watch.epoch_end():
            break
    assert watch.ticket.mask.density == 0.5


def test_targets_in_a_nest_reach_the_loss_there(device):
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kind, self.place = nn.Linear(6, 4), nn.Linear(6, 2)

        def forward(self, x):
            return {"kind": self.kind(x), "place": self.place(x)}

    def loss(outputs, targets):
        kind = nn.functional.cross_entropy(outputs["kind"], targets["kind"])
        return kind + nn.functional.mse_loss(outputs["place"], targets["at"][0])

    batch = torch.randn(8, 6), {"kind": torch.arange(8) % 4, "at": (torch.randn(8, 2),)}
    model = TwoHeads()
    for name in ("snip", "taylor", "prospr"):
        expected = SCORES[name](model.cpu(), [batch], loss)
        scores = SCORES[name](model.to(NAME), [batch], loss)
        assert torch.equal(scores["kind.weight"].cpu(), expected["kind.weight"])


def test_class_weights_of_a_loss_follow_the_network(device):
    task = replace(brief_task(short_network), loss=nn.CrossEntropyLoss(weight=torch.arange(1.0, 6.0)))
    losses, runs = [], []
    for place in (NAME, "cpu"):
        losses.append(tb.train(task, tb.find(task, tb.OneShot(density=0.5), device=place), device=place).loss)
        runs.append(tb.training.task_identity(task, 0, task.recipe, "float32"))
    assert losses[0] == pytest.approx(losses[1])
    assert runs[0] == runs[1]


@pytest.mark.parametrize(("optimizer", "room"), [("sgd", 0), ("adamw", 1 << 30)])
def test_a_masked_step_never_waits_for_the_device(device, monkeypatch, optimizer, room):
    monkeypatch.setattr(placement, "free_memory", lambda device: room)
    waits = []
    for batch in (60, 10):
        task = brief_task(short_network, batch)
        task = replace(task, recipe=replace(task.recipe, optimizer=optimizer, augment=("crop", "flip")))
        mask = tb.select(tb.scores.magnitude(task.build(0)), 0.3)
        device.waits.clear()
        fit = Run(device=NAME).stage("train", task, task.build(0).to(NAME), attached=mask)
        assert fit.cost.samples_backward == 108
        waits.append(len(device.waits))
    assert waits[0] == waits[1]  # of two steps, and of eleven


def test_the_balance_of_concrete_masks_waits_for_nothing(device):
    waits = []
    for batch in (60, 20):
        device.waits.clear()
        tb.find(brief_task(flat_network, batch), tb.methods.ConcreteTicketSearch(density=0.1), device=NAME)
        waits.append(len(device.waits))
    assert waits[0] == waits[1]  # of two steps, and of six


def test_thresholds_of_scores_stay_on_the_device(device):
    waits = []
    for batch in (60, 20):
        device.waits.clear()
        tb.find(brief_task(flat_network, batch), tb.method("edge-popup-global", density=0.3), device=NAME)
        waits.append(len(device.waits))
    assert waits[0] == waits[1]


def test_what_is_only_counted_is_not_copied_there(device):
    task = brief_task(toy_network)
    model, batch = task.build(0).to(NAME), next(iter(task.batches("train", 0, 0)))
    device.ran.clear()
    device.waits.clear()
    assert SampleFlops.measure(task, model, batch).training > 0
    assert step_memory(task, model, batch, task.recipe) > 0
    assert set(device.ran) <= {"aten.detach.default", "aten._to_copy.default"}
    assert not device.waits


def test_costs_are_read_from_the_clock_once_the_device_is_done(device):
    task, run = brief_task(toy_network), Run(device=NAME)
    model = task.build(0).to(NAME)
    for work in (
        lambda: run.score(tb.scores.Snip(), task, model),
        lambda: run.validate(task, model, task.recipe),
        lambda: run.stage("train", task, model),
    ):
        device.waits.clear()
        work()
        assert device.waits.count("synchronize") >= 2


def test_all_dead_weights_are_zeroed_at_once_after_a_step(device):
    model = toy_network().to(NAME)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    mask = tb.select(tb.scores.magnitude(model), 0.3)
    with tb.attach(mask, model, optimizer):
        for harm in (1.0, float("nan")):
            inputs, targets = next(iter(brief_task(toy_network).batches("train", 0, 0)))
            nn.functional.cross_entropy(model(inputs.to(NAME)), targets.to(NAME)).backward()
            with torch.no_grad():
                for name in mask:
                    model.get_parameter(name).mul_(-harm)  # −0.0, and NaN
            device.ran.clear()
            optimizer.step()
            assert device.ran.count("aten._foreach_mul_.List") == 1
            assert "aten.bitwise_and_.Tensor" not in device.ran
            for name in mask:
                state = optimizer.state[model.get_parameter(name)]["momentum_buffer"]
                for tensor in (model.get_parameter(name).detach().cpu(), state.cpu()):
                    assert not tensor.view(torch.int32)[~mask[name]].any()  # not even a sign
        assert model.get_parameter("0.weight").isnan().any()  # what lives is not touched
