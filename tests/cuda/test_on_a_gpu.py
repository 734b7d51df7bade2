"""What only a GPU can show; skipped where there is none. `pytest tests/cuda` takes a minute or two."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import tombola as tb
from kinds import WEIGHT_SCORES
from networks import short_network, short_resnet, short_transformer
from tombola import zoo
from tombola.registry import METHODS
from tombola.testing import check_method, check_score, toy_network, toy_task
from tombola.training import Observer, Run, SampleFlops, State

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # torch names each operation that is not deterministic there
]
tiny_two_layer = partial(zoo.MODELS["two-layer"], (1, 8, 8), 5, 0.05)


@pytest.mark.parametrize("name", WEIGHT_SCORES)
def test_every_score_keeps_the_laws(name):
    check_score(WEIGHT_SCORES[name], device="cuda")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_the_laws(name):
    networks = {"layer-": short_resnet, "filter-": short_resnet, "-transformer": short_transformer}
    networks |= {"greedy-neurons": tiny_two_layer, "grasp-it": toy_network}
    network = next((own for part, own in networks.items() if part in name), short_network)
    check_method(tb.method(name, density=0.3), network, device="cuda")


def test_auto_is_the_gpu_and_results_say_so():
    study = tb.compare(toy_task(short_network, epochs=1), [tb.OneShot(density=0.3)], seeds=1)
    assert {result.settings["device"] for result in study.results} == {"cuda"}
    assert next(tb.train(toy_task(epochs=1)).model.parameters()).is_cuda


@pytest.mark.parametrize("network", [toy_network, short_resnet, short_transformer])
def test_a_smaller_network_computes_what_the_masked_one_does(network):
    task = toy_task(network, epochs=1)
    ticket = tb.find(task, tb.OneShot(density=0.5, granularity=tb.Channels(), floor=1))
    model = tb.train(task, ticket, small=False).model
    inputs = next(iter(task.batches("test", 0, 0)))[0].cuda()
    small = tb.shrink(model, ticket, example=inputs)  # compares the outputs in float64, to 1e-9
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


def test_a_masked_step_never_waits_for_the_gpu():
    class Strict(Observer):
        """Lets torch raise an error at whatever waits, from the first step on."""

        def after_step(self, state: State) -> None:
            torch.cuda.set_sync_debug_mode("error" if state.step < state.steps_per_epoch else "default")

    task = toy_task(epochs=1)
    mask = tb.select(tb.scores.magnitude(task.build(0)), 0.3)
    try:
        Run(device="cuda").stage("train", task, task.build(0).cuda(), attached=mask, observers=[Strict()])
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_random_states_of_all_devices_stay(device):
    torch.cuda.manual_seed_all(7)
    before = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
    task = toy_task(epochs=1)
    tb.train(task, tb.find(task, tb.OneShot(density=0.5, score=tb.scores.ProsPr()), device=device), device=device)
    tb.scores.snip(task.build(0).to(device), task.batches("train", 0, 0), task.loss)
    assert all(map(torch.equal, before, [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]))


def test_what_is_only_counted_takes_no_memory():
    task = toy_task(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4000), nn.ReLU(), nn.Linear(4000, 5)))
    model, batch = task.build(0).cuda(), next(iter(task.batches("train", 0, 0)))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    SampleFlops.measure(task, model, batch)
    assert torch.cuda.max_memory_allocated() == before


def test_the_seconds_of_a_score_are_those_of_the_gpu():
    task = toy_task(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 8000), nn.Linear(8000, 8000), nn.Linear(8000, 5)))
    task = replace(task, recipe=replace(task.recipe, batch=100))
    model, run = task.build(0).cuda(), Run(device="cuda")
    run.score(tb.scores.SynFlow(), task, model)  # the first call counts FLOPs, and loads what it needs
    before, start, end = run.cost.seconds, torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run.score(tb.scores.SynFlow(), task, model)
    end.record()
    end.synchronize()
    assert run.cost.seconds - before > 0.5 * start.elapsed_time(end) / 1000


def test_worths_of_units_are_the_same_each_time():
    rows = tuple((unit, unit + 500, unit + 1000) for unit in range(500))
    part, tensor = tb.structure.Slice("w", 0, rows), torch.randn(1500, 64, device="cuda")
    first = part.totals(tensor, 500)
    assert all(torch.equal(first, part.totals(tensor, 500)) for _ in range(20))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.cells(x[:, 0])[0][:, -1])


@pytest.mark.parametrize("name", [name for name in WEIGHT_SCORES if name != "wanda"])  # which knows no recurrent layers
def test_recurrent_layers_are_scored_as_on_the_cpu(name):
    task, score = toy_task(Recurrent), WEIGHT_SCORES[name]
    model, batches = task.build(0), list(task.batches("train", 0, 0))
    expected = score(model, batches, task.loss)
    scores = score(model.cuda(), batches, task.loss)
    for parameter, values in expected.items():
        assert torch.allclose(scores[parameter].cpu(), values, rtol=1e-2, atol=1e-2 * float(values.abs().max()))


def test_class_weights_of_a_loss_follow_the_network():
    task = replace(toy_task(epochs=1), loss=nn.CrossEntropyLoss(weight=torch.arange(1.0, 6.0)))
    tb.train(task, tb.find(task, tb.OneShot(density=0.5)))
    tb.train(task, tb.find(task, tb.OneShot(density=0.5), device="cpu"), device="cpu")
