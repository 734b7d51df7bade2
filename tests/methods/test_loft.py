"""LoFT: filters shared among workers, merged and dealt anew; rankings of filters; bytes as the paper counts them."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise, permutations
from statistics import fmean

import pytest
import torch
from torch import nn

import tombola as tb
from networks import short_resnet
from tombola import TombolaError, zoo
from tombola.methods import LoFT
from tombola.methods.communication import Communication, pipelined
from tombola.methods.filter_division import Divisions, InnerFilters, deal, dealt, merge
from tombola.methods.filter_rankings import Settling, chance_distance, ranked, ranking_distance
from tombola.structure import Channels, narrowed
from tombola.testing import toy_task
from tombola.tickets import put_values, tensors_of
from tombola.training import Recipe, Run, mixed
from tombola.zoo.resnet import ResNet, large_resnet


def small(kind="basic", blocks=(1, 2)) -> nn.Module:
    return ResNet(kind, 4, [(4, blocks[0]), (8, blocks[1])], "A", (1, 8, 8), 5)


def task_of(network=small, **recipe):
    task = toy_task(network)
    return replace(task, recipe=replace(task.recipe, channels_last="off", **recipe))


def call(network):
    return network(torch.randn(2, 1, 8, 8).to(next(network.parameters())))


def call16(network):
    return network(torch.zeros(2, 1, 16, 16))


def divisions_of(model, workers=2, blocks="later", shares=(), probe=call, seed=0) -> Divisions:
    filters = InnerFilters.of(model, Channels().units(model, probe), probe, blocks)
    return Divisions(filters, model, workers, shares, seed)


# The distance of rankings


def test_the_distance_of_rankings_is_the_papers():
    assert ranking_distance([0, 1], [1, 0]) == pytest.approx(1.5 * math.log(2))
    first, second = [3, 0, 2, 1], [0, 2, 3, 1]
    by_hand = math.log(3) + (math.log(2) - math.log(1)) / 2 + (math.log(3) - math.log(2)) / 3 + 0
    assert ranking_distance(first, second) == pytest.approx(by_hand)
    assert ranking_distance(second, first) != pytest.approx(by_hand)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_distance_keeps_its_bounds(size):
    every = list(permutations(range(size)))
    distances = {order: ranking_distance(range(size), order) for order in every}
    harmonic = sum(1 / place for place in range(1, size + 1))
    assert all((value == 0) == (order == every[0]) for order, value in distances.items())
    assert all(0 <= value <= math.log(size) * harmonic for value in distances.values())
    assert chance_distance(size) == pytest.approx(fmean(distances.values()))
    # The higher two neighbours stand, the more it matters that they change places.
    swapped = [[*range(at), at + 1, at, *range(at + 2, size)] for at in range(size - 1)]
    assert all(distances[tuple(one)] > distances[tuple(two)] for one, two in pairwise(swapped))
    # Only the order counts, not how filters are called.
    names = torch.randperm(size).tolist()
    assert all(
        ranking_distance(names, [names[own] for own in order]) == pytest.approx(value)
        for order, value in distances.items()
    )


def test_rankings_settle_when_the_newest_is_near_all_of_the_window():
    settling = Settling(0.1, 3)
    rankings = [{"a": [0, 1, 2], "b": [1, 0]}, {"a": [0, 1, 2], "b": [0, 1]}]
    assert settling.look(rankings[0]) == {}
    row = settling.look(rankings[1])
    assert row["ranking_distance"] == pytest.approx(0.75 * math.log(2))
    assert row["ranking_share"] == pytest.approx(1.0)  # (0 + 1.5 ln 2 / chance of two) / 2
    settled = []
    for _ in range(3):
        settling.look(rankings[1])
        settled.append(settling.settled)
    assert settled == [False, True, True]
    assert not Settling(0.0, 2).settled
    assert ranked({"a": torch.tensor([1.0, 3.0, 3.0])}) == {"a": [1, 2, 0]}


# Divisions


@pytest.mark.parametrize(("kind", "workers", "shares"), [("basic", 3, ()), ("pre-activation", 2, (3, 1))])
def test_a_division_covers_all_filters_once_and_a_merge_puts_all_back(kind, workers, shares):
    model = small(kind)
    divisions = divisions_of(model, workers, shares=shares)
    assert divisions.filters.shared == {"layer2.1.conv1": 8}
    (owner,) = divisions.owners(0).values()
    sizes = owner.bincount(minlength=workers).tolist()
    assert sizes == ([3, 3, 2] if workers == 3 else [6, 2])
    assert [divisions.owners(0)["layer2.1.conv1"].tolist()] == [own.tolist() for own in divisions.owners(0).values()]
    assert divisions.owners(0)["layer2.1.conv1"].tolist() != divisions.owners(1)["layer2.1.conv1"].tolist()
    whole = {name: torch.randn(t.shape) for name, t in tensors_of(model).items() if t.is_floating_point()}
    axes = [divisions.axes(0, rank) for rank in range(workers)]
    inner = {"layer2.1.conv1.weight", "layer2.1.conv2.weight"}
    norm = "layer2.1.bn1" if kind == "basic" else "layer2.1.bn2"
    inner |= {f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")}
    assert all(set(own) == inner for own in axes)
    parts = [{name: narrowed(t, own.get(name, {})) for name, t in whole.items()} for own in axes]
    again = {name: torch.zeros_like(t) for name, t in whole.items()}
    merge(again, parts, axes)
    assert all(torch.allclose(again[name], whole[name], rtol=1e-6) for name in whole)
    assert all(torch.equal(again[name], whole[name]) for name in inner)  # written back, and not averaged
    for rank, part in enumerate(parts):
        part["fc.bias"].fill_(float(rank))
        part["layer2.1.conv1.weight"].fill_(float(rank))
    merge(again, parts, axes)
    assert again["fc.bias"].eq((workers - 1) / 2).all()
    assert torch.equal(again["layer2.1.conv1.weight"][:, 0, 0, 0], owner.float())  # no slice is lost
    merge(again, parts, axes, of_first={"fc.bias"})
    assert not again["fc.bias"].any()
    copy = {name: torch.zeros_like(t) for name, t in parts[1].items()}
    deal(again, copy, axes[1])
    assert torch.equal(copy["layer2.1.conv1.weight"], parts[1]["layer2.1.conv1.weight"])


def test_every_second_convolution_of_a_block_shares_its_filters():
    bottlenecks = ResNet("bottleneck", 8, [(8, 1), (16, 2)], "A", (1, 8, 8), 5)
    filters = divisions_of(bottlenecks, 2, "every").filters
    assert list(filters.shared) == ["layer1.0.conv1", "layer2.0.conv1", "layer2.1.conv1"]
    later = divisions_of(short_resnet(), 2).filters
    assert list(later.shared) == ["layer2.1.conv1", "layer2.2.conv1"]
    assert list(later.pruned) == ["layer1.1.conv1", "layer1.2.conv1", *later.shared]


def test_unequal_shares_leave_each_worker_a_filter():
    assert dealt(torch.arange(4), 3, (100, 1, 1)).tolist() == [0, 0, 1, 2]
    assert dealt(torch.arange(7), 2, (1, 2)).bincount().tolist() == [2, 5]


# Training


def searched(task, method, seed=0):
    run = Run(seed, device="cpu")
    return tb.find(task, method, run=run), run.history


def test_one_worker_that_keeps_its_momentum_trains_as_anybody():
    task = task_of()
    ticket, history = searched(task, LoFT(team=1, local_steps=4, momentum="kept", epsilon=0.0))
    plain = tb.train(task)
    assert all(torch.equal(ticket.start.tensors[name], t) for name, t in tensors_of(plain.model).items())
    assert [row["train_loss"] for row in history] == [row["train_loss"] for row in plain.history]


def by_hand(task, workers: int, every: int, seed: int = 0):
    """LoFT on whole networks whose other workers' filters are held at zero: an independent way to the same values."""
    whole = task.build(seed)
    owners = divisions_of(task.build(seed), workers, seed=seed)
    steps_per_epoch = len(task.batches("train", 0, 0))
    total, step, division = task.recipe.epochs * steps_per_epoch, 0, 0

    def live(name: str, tensor, rank: int):
        mask = torch.ones_like(tensor)
        for layer, owner in owners.owners(division).items():
            block = layer.removesuffix(".conv1")
            other = owner != rank
            if name.startswith((f"{block}.conv1.", f"{block}.bn1.")):
                mask[other] = 0
            elif name.startswith(f"{block}.conv2."):
                mask[:, other] = 0
        return mask

    def new_workers():
        copies = []
        for rank in range(workers):
            copy = task.build(seed)
            put_values(copy, tensors_of(whole))
            for name, parameter in copy.named_parameters():
                parameter.data.mul_(live(name, parameter, rank))
            optimizer = torch.optim.SGD(copy.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
            copies.append((copy.train(), optimizer))
        return copies

    team = new_workers()
    for epoch in range(task.recipe.epochs):
        seeds = [mixed(seed, rank) if rank else seed for rank in range(workers)]
        for batches in zip(*(task.batches("train", own, epoch) for own in seeds), strict=True):
            for rank, ((copy, optimizer), (inputs, targets)) in enumerate(zip(team, batches, strict=True)):
                optimizer.param_groups[0]["lr"] = task.recipe.lr_at(step, steps_per_epoch)
                optimizer.zero_grad()
                nn.functional.cross_entropy(copy(inputs), targets).backward()
                for name, parameter in copy.named_parameters():
                    parameter.grad.mul_(live(name, parameter, rank))
                optimizer.step()
            step += 1
            if step % every and step != total:
                continue
            values = [tensors_of(copy) for copy, _ in team]
            merged = {}
            for name, tensor in tensors_of(whole).items():
                if tensor.is_floating_point():
                    masks = [live(name, tensor, rank) for rank in range(workers)]
                    sums = sum(own[name] * mask for own, mask in zip(values, masks, strict=True))
                    merged[name] = sums / sum(masks)
                else:
                    merged[name] = values[0][name]
            put_values(whole, merged)
            division += 1
            team = new_workers()
    return tensors_of(whole)


def test_two_workers_come_to_what_is_computed_by_hand():
    task = task_of()
    ticket, history = searched(task, LoFT(team=2, local_steps=4, epsilon=0.0))
    expected = by_hand(task, 2, 4)
    for name, tensor in expected.items():
        assert torch.allclose(ticket.start.tensors[name].float(), tensor.float(), rtol=1e-4, atol=1e-5), name
    assert [row["communicated"] for row in history] == [history[0]["communicated"], 3 * history[0]["communicated"]]


def test_the_ticket_keeps_the_largest_filters_of_each_layer():
    ticket, _ = searched(task_of(lambda: small(blocks=(2, 3)), epochs=1), LoFT(density=0.5, local_steps=4))
    assert list(ticket.removed) == ["layer1.1.conv1", "layer2.1.conv1", "layer2.2.conv1"]
    for layer, removed in ticket.removed.items():
        norms = ticket.start.tensors[f"{layer}.weight"].square().sum((1, 2, 3))
        assert set(removed) == set(norms.argsort()[: len(norms) // 2].tolist())
        block = layer.removesuffix(".conv1")
        for name in (f"{layer}.weight", f"{block}.bn1.weight", f"{block}.bn1.bias"):
            assert not ticket.mask[name][list(removed)].any()
        assert not ticket.mask[f"{block}.conv2.weight"][:, list(removed)].any()


@pytest.mark.slow
def test_momentum_goes_with_its_filters_and_statistics_may_be_the_first_workers():
    task, kept = task_of(), LoFT(local_steps=4, momentum="kept", epsilon=0.0)
    (ticket, history), (fresh, plain) = searched(task, kept), searched(task, replace(kept, momentum="fresh"))
    assert ticket.start.digest != fresh.start.digest
    assert history[-1]["communicated"] > 1.9 * plain[-1]["communicated"]
    first, _ = searched(task, LoFT(local_steps=4, statistics="first", epsilon=0.0))
    mean, variance = "layer1.0.bn1.running_mean", "layer2.1.bn1.running_var"
    assert not torch.equal(first.start.tensors[mean], fresh.start.tensors[mean])
    assert torch.equal(first.start.tensors["conv1.weight"], fresh.start.tensors["conv1.weight"])
    assert torch.equal(first.start.tensors[variance], fresh.start.tensors[variance])


def test_nothing_settles_between_two_merges():
    task = task_of(epochs=3)
    ticket, history = searched(task, LoFT(local_steps=9, window=2, epsilon=10.0))
    assert ["ranking_distance" in row for row in history] == [False, False, True]  # merged after epochs 1.5 and 3
    assert ticket.start.what == "end"
    drawn, history = searched(task, LoFT(local_steps=6, window=2, epsilon=10.0))
    assert len(history) == 2
    assert drawn.start.what == "2ep"
    assert dict(drawn.recipe) == {}


# Communication


def test_bytes_are_counted_as_in_the_papers_table():
    torch.manual_seed(0)
    nets = {}
    for name, blocks in (("resnet34", (3, 4, 6, 3)), ("resnet18", (2, 2, 2, 2))):
        classes = 10 if name == "resnet34" else 1000
        with torch.device("meta"):
            model = large_resnet("pre-activation", blocks, 1, (3, 32, 32), classes)
        filters = divisions_of(model, 2, probe=lambda own: own(torch.zeros(2, 3, 32, 32, device="meta"))).filters
        inner = {layer.removesuffix(".conv1") for layer in filters.shared}
        shared = sum(
            p.numel()
            for n, p in model.named_parameters()
            if n.rpartition(".")[0] in {f"{b}.{part}" for b in inner for part in ("conv1", "bn2", "conv2")}
        )
        nets[name] = (sum(p.numel() for p in model.parameters()) - shared, shared)
    assert nets["resnet34"][1] / 1e6 == pytest.approx(16.23, abs=0.01)
    assert nets["resnet34"][0] / 1e6 == pytest.approx(5.05, abs=0.01)
    four_to_two = {
        name: Communication.of_sizes(*sizes, workers=4).filterwise(1500, 15)
        / Communication.of_sizes(*sizes, workers=2).filterwise(1500, 15)
        for name, sizes in nets.items()
    }
    assert four_to_two["resnet34"] == pytest.approx(144.27 / 104.59, rel=0.005)
    assert four_to_two["resnet18"] == pytest.approx(1284.84 / 791.09, rel=0.012)
    gpipe = {2: pipelined([16_384], 50_000 * 20), 4: pipelined([32_768, 16_384, 8_192], 50_000 * 20)}
    assert gpipe[4] / gpipe[2] == round(461.60 / 131.88, 2) == 3.5
    assert gpipe[2] / 1e9 == pytest.approx(131.88, rel=0.01)
    gains = {131.88 / 104.59: 1.26, 461.60 / 144.27: 3.20, 461.60 / 144.66: 3.19, 52385.59 / 1284.84: 40.77}
    assert all(round(own, 2) == table for own, table in gains.items())
    assert round(20954.24 / 791.09, 2) == 26.49  # the table says 21.60


# Bad input


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (
            lambda: divisions_of(small(), 9),
            "'layer2.1.conv1' has 8 filters, which 9 workers cannot share",
        ),
        (lambda: divisions_of(zoo.model("vgg11", (1, 16, 16), 5, 0.1)(), probe=call16), "it has no residual block"),
        (lambda: divisions_of(small(blocks=(2, 1))), "first of its stage or in the first stage; give blocks='every'"),
        (lambda: LoFT(team=0), "team is 0; give at least 1"),
        (lambda: LoFT(shares=(1.0,)), "give one number above 0 for each"),
        (lambda: LoFT(shares=(1.0, 0.0)), "give one number above 0 for each"),
        (lambda: LoFT(density=0.0), "above 0"),
        (lambda: LoFT(scope="erk"), "shares weights among layers"),
        (lambda: LoFT(limit=0.0), "seconds to wait"),
        (lambda: LoFT(epsilon=-1.0), "at least 0"),
        (lambda: LoFT(granularity=tb.structure.Weights()), "workers share filters, and no weights"),
        (lambda: LoFT()._recipe(replace(toy_task(), recipe=Recipe(precision="fp16"))), "no scale of losses"),
        (lambda: ranking_distance([0, 1], [0, 2]), "not of the same filters"),
        (lambda: ranking_distance([0, 1, 1], [0, 1, 1]), "not of the same filters"),
    ],
)
def test_what_cannot_be_is_refused(act, says):
    with pytest.raises(TombolaError, match=says):
        act()
