"""Greedy forward selection of neurons: the picks themselves, the tickets, and what is refused."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tombola as tb
from tombola import TombolaError, zoo
from tombola.evidence.arms import Against
from tombola.evidence.controls import control
from tombola.methods import forward_selection
from tombola.methods.neuron_tickets import TwoLayerDraw
from tombola.structure import two_layers
from tombola.testing import check_method, toy_network, toy_task
from tombola.tickets import attach
from tombola.training import Run, half_squared_error, start_of

small_net = partial(zoo.MODELS["two-layer"], (1, 8, 8), 5, 0.05)


def random_instance(seed: int, examples: int = 12, neurons: int = 9, outputs: int = 3):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((examples, neurons), (neurons, outputs), (examples, outputs))
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)


def by_hand(hidden, outgoing, targets, picks: int, repeat: bool):
    """All candidates tried one by one, as the rule is written."""
    neurons = hidden.shape[1]
    features = [neurons * hidden[:, [i]] * outgoing[i] for i in range(neurons)]
    total, order, losses = torch.zeros_like(targets), [], []
    for count in range(1, picks + 1):
        free = [i for i in range(neurons) if repeat or i not in order]
        tried = {i: float(((total + features[i]) / count - targets).square().sum() / 2 / len(hidden)) for i in free}
        best = min(tried, key=tried.get)
        total = total + features[best]
        order.append(best)
        losses.append(tried[best])
    return order, losses


@given(seed=st.integers(0, 10**6), outputs=st.integers(1, 4), repeat=st.booleans())
@settings(max_examples=25, deadline=None)
def test_each_pick_is_the_best_of_all_candidates(seed, outputs, repeat):
    given = random_instance(seed, outputs=outputs)
    picked = forward_selection(*given, 9, repeat=repeat)
    order, losses = by_hand(*given, 9, repeat)
    assert picked.order.tolist() == order
    assert torch.allclose(picked.losses, torch.tensor(losses, dtype=torch.float64), rtol=1e-12)


def test_picks_give_the_subnetwork_whose_loss_they_say():
    hidden, outgoing, targets = random_instance(3)
    picked = forward_selection(hidden, outgoing, targets, 20)
    outputs = hidden @ (outgoing * picked.scales[:, None])
    assert half_squared_error(outputs, targets).item() == pytest.approx(picked.losses[-1].item(), rel=1e-12)
    assert int(picked.counts.sum()) == 20
    assert picked.whole == pytest.approx(half_squared_error(hidden @ outgoing, targets).item(), rel=1e-12)


def test_all_neurons_without_repetition_are_the_whole_network():
    hidden, outgoing, targets = random_instance(4)
    picked = forward_selection(hidden, outgoing, targets, 9, repeat=False)
    assert sorted(picked.order.tolist()) == list(range(9))
    assert picked.losses[-1].item() == pytest.approx(picked.whole, rel=1e-12)


def test_single_precision_picks_as_well():
    given = random_instance(5, examples=400, neurons=60)
    single = forward_selection(*(own.float() for own in given), 40)
    assert single.losses[-1].item() == pytest.approx(forward_selection(*given, 40).losses[-1].item(), rel=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_picks_the_same():
    given = random_instance(6)
    here, there = (forward_selection(*(own.to(device) for own in given), 9) for device in ("cpu", "cuda"))
    assert there.order.tolist() == here.order.tolist()


def test_no_array_as_large_as_the_features_or_the_gram_matrix_is_made():
    hidden, outgoing, targets = torch.randn(600, 500), torch.randn(500, 8), torch.randn(600, 8)
    largest, given = 0, hidden.untyped_storage().data_ptr()

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() != given:
                largest = max(largest, out.numel())
            return out

    with Sizes():
        forward_selection(hidden, outgoing, targets, 5)
    assert largest <= 256 * 500


@pytest.mark.parametrize(
    ("picks", "repeat", "says"),
    [
        (10, False, "10 neurons are to be picked without repetition, but the hidden layer has 9"),
        (0, True, "at least 1"),
    ],
)
def test_more_neurons_than_there_are_and_none_are_refused(picks, repeat, says):
    with pytest.raises(TombolaError, match=says):
        forward_selection(*random_instance(0), picks, repeat=repeat)


def test_more_picks_than_neurons_are_fewer_distinct_ones():
    picked = forward_selection(*random_instance(0), 50)
    assert (picked.counts > 0).sum() <= 9


def test_activations_that_are_not_finite_are_refused():
    hidden, outgoing, targets = random_instance(0)
    hidden[2, 3] = torch.inf
    with pytest.raises(TombolaError, match="not finite; train at a lower learning rate"):
        forward_selection(hidden, outgoing, targets, 2)


@pytest.mark.parametrize(
    "method",
    [
        tb.methods.GreedyNeurons(density=0.3, repeat=False),
        tb.methods.GreedyNeurons(density=0.3, examples=30, epochs=1),
        pytest.param(
            tb.methods.GreedyNeurons(density=0.3, until=tb.methods.EnoughPretraining(first=2, examples=40, stop=False)),
            marks=pytest.mark.slow,
        ),
        tb.methods.GreedyNeurons(density=0.3, until=tb.methods.EnoughPretraining(at=("1ep",), patience=1)),
    ],
    ids=["no repetition", "one epoch", "draws", "until"],
)
def test_every_setting_keeps_the_laws(method):
    check_method(method, small_net)


@pytest.mark.parametrize("repeat", [True, False])
def test_the_ticket_is_the_picked_network_and_shrinks(repeat):
    task = toy_task(small_net)
    ticket = tb.find(task, tb.methods.GreedyNeurons(picks=20, repeat=repeat))
    (gone,) = ticket.removed.values()
    assert len(gone) == 30 if not repeat else len(gone) >= 30
    model = start_of(task, ticket, 0)
    cut = copy.deepcopy(model)
    attach(ticket.mask, cut).detach()
    inputs = torch.randn(6, 1, 8, 8)
    small = tb.shrink(model, ticket, example=inputs)
    assert small[1].out_features == small[4].in_features == 50 - len(gone)
    assert torch.allclose(small(inputs), cut(inputs), atol=1e-6)
    assert ticket.recipe["schedule"] == "constant"


@pytest.mark.parametrize("repeat", [True, False])
def test_a_shuffled_mask_has_neurons_to_keep(repeat):
    task, method = toy_task(small_net), tb.methods.GreedyNeurons(picks=20, repeat=repeat, epochs=1)
    ticket = tb.find(task, method)
    shuffled = control("shuffle", Against(task, ticket, 1, method)).ticket
    assert shuffled.mask != ticket.mask
    assert all(shuffled.start.tensors[name][bits].all() for name, bits in shuffled.mask.items())


def test_the_history_keeps_the_loss_of_every_pick():
    run = Run(0)
    ticket = tb.find(toy_task(small_net), tb.methods.GreedyNeurons(picks=30), run=run)
    (row,) = (row for row in run.history if row["stage"] == "selection")
    assert len(row["losses"]) == 30
    assert row["losses"][-1] < row["losses"][0]
    assert ticket.provenance.before is not None


def test_an_output_bias_is_not_picked_against():
    task = toy_task(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.Tanh(), nn.Linear(30, 5)))
    model = task.build(0)
    model[3].bias.data.fill_(3.0)
    layers = two_layers(model, lambda own: own(torch.randn(2, 1, 8, 8)))
    inputs, targets = next(iter(task.batches("train", 0, 0)))
    picked = TwoLayerDraw(layers, 10, True, len(inputs)).of(model, [(inputs, targets)], lambda own, x: own(x))
    hidden = model[:3](inputs).detach()
    outputs = hidden @ (model[3].weight.T * picked.scales[:, None].float()) + 3.0
    assert half_squared_error(outputs, targets).item() == pytest.approx(picked.losses[-1].item(), rel=1e-4)


class Softened(nn.Sequential):
    def forward(self, inputs):
        return super().forward(inputs).softmax(-1)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(64, 64), nn.Linear(64, 5)

    def forward(self, inputs):
        return self.two(self.one(self.one(inputs.flatten(1)).tanh()))


def two(*between: nn.Module) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(64, 20), *between, nn.Linear(20, 5)]


REFUSED = {
    "convolutions": (toy_network, "'0' is a Conv2d"),
    "three layers": (lambda: nn.Sequential(*two(nn.Tanh(), nn.Linear(20, 20))), "has 3 linear layers"),
    "one layer": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), "has 1 linear layer "),
    "norm": (lambda: nn.Sequential(*two(nn.BatchNorm1d(20))), "'2' is a BatchNorm1d"),
    "softmax": (lambda: Softened(*two(nn.Tanh())), "something follows '3'"),
    "shared": (Twice, "called 3 times"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_networks_are_refused_before_any_training(name):
    network, says = REFUSED[name]
    run = Run(0)
    with pytest.raises(TombolaError, match=says) as caught:
        tb.find(toy_task(network), tb.methods.GreedyNeurons(), run=run)
    assert not run.history
    assert "use the method greedy" in str(caught.value) or "move it into the loss" in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"density": 0.0}, "density is 0.0"),
        ({"picks": -1}, "picks is -1"),
        ({"examples": 0}, "examples is 0"),
        ({"epochs": -1}, "epochs is -1"),
    ],
)
def test_bad_settings_get_one_sentence(wrong, says):
    with pytest.raises(TombolaError, match=says):
        tb.methods.GreedyNeurons(**wrong)


def test_more_neurons_than_the_layer_has_are_refused_with_its_name():
    with pytest.raises(TombolaError, match="60 neurons are to be picked without repetition, but '1' has 50"):
        tb.find(toy_task(small_net), tb.methods.GreedyNeurons(picks=60, repeat=False))


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (torch.tensor([0, 5]), "classes from 0 to 5, but the network has 5"),
        (torch.rand(2, 4), r"do not fit outputs of shape \(2, 5\)"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets, says):
    model = small_net()
    layers = two_layers(model, lambda own: own(torch.randn(2, 1, 8, 8)))
    with pytest.raises(TombolaError, match=says):
        TwoLayerDraw(layers, 3, True, 10).of(model, [(torch.randn(2, 1, 8, 8), targets)], lambda own, x: own(x))


def test_regression_targets_are_taken_as_they_are():
    model = zoo.MODELS["two-layer"]((1, 8, 8), 1, 0.05)
    layers = two_layers(model, lambda own: own(torch.randn(2, 1, 8, 8)))
    batch = torch.randn(20, 1, 8, 8), torch.randn(20)
    flat, column = (
        TwoLayerDraw(layers, 8, True, 20).of(model, [(batch[0], targets)], lambda own, x: own(x)).losses
        for targets in (batch[1], batch[1][:, None])
    )
    assert torch.equal(flat, column)
