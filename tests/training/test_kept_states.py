"""Networks whose tensors come from their data: lazy layers, and states that follow the batch; losses that smooth."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from tombola.testing import toy_task
from tombola.tickets import put_values, tensors_of


class Stateful(nn.Module):
    """A recurrent network that goes on from where the last batch ended; 120 samples in batches of 25 leave 20."""

    def __init__(self, start: str = "a state") -> None:
        super().__init__()
        self.inner, self.last = nn.GRU(8, 6, batch_first=True), nn.Linear(6, 5)
        state = torch.zeros(1, 1, 6) if start == "a state" else None
        self.register_buffer("state", state, persistent=start != "none, in no checkpoint")

    def forward(self, x):
        state = torch.zeros(1, 1, 6, device=x.device) if self.state is None else self.state
        outputs, state = self.inner(x[:, 0], state.mean(1, keepdim=True).repeat(1, len(x), 1))
        self.state = state.detach()
        return self.last(outputs[:, -1])


STARTS = ("a state", "none", "none, in no checkpoint")


@pytest.mark.parametrize("start", STARTS)
def test_a_state_that_follows_the_batch_is_no_other_architecture(start, tmp_path):
    task = toy_task(partial(Stateful, start))
    task = replace(task, recipe=replace(task.recipe, batch=25))
    method = tb.Iterative(density=0.5, count=2)
    ticket = tb.find(task, method, progress=False)
    for _ in range(2):  # the second time all stages are read
        assert tb.find(task, method, run=tb.training.Run(0, tmp_path), progress=False).digest == ticket.digest
    rewound = tb.find(task, replace(method, rewind="3it"), progress=False)
    assert rewound.start.tensors["state"].shape == (1, 25, 6)
    tb.train(task, rewound)


@pytest.mark.parametrize("start", STARTS)
def test_a_state_is_rewound_bit_for_bit_and_left_by_scores(start):
    network, inputs = Stateful(start), torch.randn(7, 1, 8, 8)
    before = {name: tensor.clone() for name, tensor in tensors_of(network).items()}
    network(inputs)
    state = network.state
    tb.scores.snip(network, [(inputs[:3], torch.zeros(3, dtype=torch.long))], F.cross_entropy)
    assert network.state is state
    after = {name: tensor.clone() for name, tensor in tensors_of(network).items()}
    put_values(network, before)
    assert tensors_of(network).keys() == before.keys()
    put_values(network, after)
    assert torch.equal(network.state, state)
    assert network.state is not after["state"]


def test_statistics_and_what_checkpoints_contain_are_still_architecture():
    small, large = (nn.BatchNorm1d(size, affine=False) for size in (3, 4))
    with pytest.raises(tb.TombolaError, match="another architecture: 'running_mean'"):
        put_values(small, tensors_of(large))
    earlier, later = nn.Linear(2, 2), nn.Linear(2, 2)
    later.register_buffer("mean", torch.ones(2))
    ticket = tb.Ticket(tb.select(tb.scores.magnitude(earlier), 0.5), tb.tickets.Values(tensors_of(earlier), "end"))
    with pytest.raises(tb.TombolaError, match=r"another architecture: 'mean' is \(2,\) in this model and missing"):
        ticket.put_into(later)


def lazy() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(5))


def test_a_task_gives_lazy_layers_their_shapes():
    task = toy_task(lazy)
    one, same, other = (tensors_of(task.build(seed)) for seed in (0, 0, 1))
    assert one["1.weight"].shape == (6, 64)
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not torch.equal(one["1.weight"], other["1.weight"])
    assert not one["2.num_batches_tracked"]
    tb.train(task, tb.find(task, tb.Iterative(density=0.5, count=1), progress=False))


@pytest.mark.parametrize(
    "use",
    [
        tb.scores.magnitude,
        lambda network: tb.attach(tb.Mask.of({"1.weight": torch.ones(6, 64) > 0}), network),
        lambda network: next(iter(tb.Iterative(density=0.5).rounds(network))),
    ],
)
def test_elsewhere_a_lazy_layer_is_named(use):
    with pytest.raises(tb.TombolaError, match=r"'1\.weight' has neither shape nor values yet.*call the network"):
        use(lazy())


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1), F.mse_loss])
def test_a_loss_that_takes_no_smoothing_is_refused_before_training(loss):
    task = toy_task()
    with pytest.raises(tb.TombolaError, match=r"^the recipe's label_smoothing is 0\.1, and the loss '\w+' does not"):
        replace(task, loss=loss, recipe=replace(task.recipe, label_smoothing=0.1))


def test_a_loss_may_smooth_by_itself():
    task, smoothing = toy_task(epochs=1), nn.CrossEntropyLoss(label_smoothing=0.1)
    by_recipe = tb.train(replace(task, recipe=replace(task.recipe, label_smoothing=0.1)))
    by_loss = tb.train(replace(task, loss=smoothing))
    assert by_recipe.history[0]["train_loss"] == by_loss.history[0]["train_loss"]
