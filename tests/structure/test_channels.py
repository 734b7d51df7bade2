"""Channels: what a removed one takes with it, in any network that can be traced."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tombola as tb
from kinds import WEIGHT_SCORES
from networks import network, short_network
from tombola import Mask, TombolaError
from tombola.evidence import Against, control
from tombola.structure import granularity, prunable, wiring_of
from tombola.testing import check_method, toy_network, toy_task
from tombola.tickets import tensors_of


def meta(x: torch.Tensor):
    return lambda model: model(x.to(next(model.parameters()).device))


def units_of(name: str):
    model, x = network(name)
    return model, tb.Channels().units(model, meta(x))


def kept(units, removed: dict[str, list[int]]) -> Mask:
    return units.kept({name: tuple(own) for name, own in removed.items()})


@pytest.mark.parametrize("name", WEIGHT_SCORES)
def test_every_score_finds_channels_under_the_laws(name):
    check_method(
        tb.OneShot(density=0.5, score=WEIGHT_SCORES[name], granularity=tb.Channels("mean"), rounds=2, floor=1),
        short_network,
    )


@pytest.mark.parametrize(("rewind", "reduction"), [("init", "sum"), ("7it", "l2"), ("learning-rate", "sum")])
def test_iterative_pruning_of_channels_keeps_the_laws(rewind, reduction):
    check_method(tb.Iterative(density=0.5, granularity=tb.Channels(reduction), count=2, rewind=rewind, floor=1))


@pytest.mark.parametrize("density", [0.3, 0.5, 0.9, 1.0])
def test_the_density_is_that_of_channels_without_the_outputs(density):
    ticket = tb.find(
        toy_task(epochs=1), tb.OneShot(density=density, granularity=tb.Channels(), floor=1), progress=False
    )
    assert set(ticket.removed) == {"0", "3"}
    assert 10 - sum(len(own) for own in ticket.removed.values()) == round(10 * density)
    assert ticket.mask.kept("8.bias" if "8.bias" in ticket.mask else "8.weight") % 5 == 0


def test_a_removed_channel_takes_its_bias_norm_and_what_reads_it():
    model = toy_network()
    units = tb.Channels().units(model, meta(torch.randn(2, 1, 8, 8)))
    mask = units.expand(kept(units, {"0": [1], "3": [2]}), tensors_of(model))
    dead = {name: (~mask[name]).nonzero()[:, 0].unique().tolist() for name in mask}
    assert [dead[name] for name in ("0.weight", "0.bias", "1.weight", "1.bias")] == [[1]] * 4
    assert [dead[name] for name in ("4.weight", "4.bias")] == [[2]] * 2
    assert not mask["3.weight"][2].any()
    assert not mask["3.weight"][:, 1].any()
    assert not mask["8.weight"][:, 32:48].any()
    assert mask["8.weight"].sum() == 5 * 80


@pytest.mark.parametrize("name", ["vgg11", "resnet20", "preresnet20", "Concatenated", "Separable"])
def test_removed_channels_emit_exactly_zero_while_the_network_trains(name):
    model, x = network(name)
    units = tb.Channels().units(model, meta(x))
    chosen = units.choose(tb.scores.random(model), 0.5, scope="layerwise", within=None, floor=1)
    mask = units.expand(chosen, dict(model.named_parameters()))
    seen: dict[str, torch.Tensor] = {}
    removed = units.families.removed(chosen)
    layers = [group.name for group in units.groups if group.name in removed and any(s.scored for s in group.slices)]
    for group in layers:
        last = units.wiring.norms.get(group, group)
        model.get_submodule(last).register_forward_hook(
            lambda own, given, out, group=group: seen.__setitem__(group, out.detach())
        )
    with tb.attach(mask, model):
        model.train()(x)
    for group, outputs in seen.items():
        dead = removed[group]
        own = outputs.movedim(1, 0) if outputs.ndim > 2 else outputs.T
        assert not own[dead].any(), group
        assert own[~dead].any(), group


def test_reductions_are_those_of_the_filters_weights():
    model, x = network("lenet5")
    scores = {name: weight.detach().abs() for name, weight in prunable(model).items()}
    first = next(iter(scores))
    by = {own: tb.Channels(own).units(model, meta(x)) for own in ("sum", "mean", "l2")}
    expected = {
        "sum": scores[first].flatten(1).sum(1),
        "mean": scores[first].flatten(1).mean(1),
        "l2": scores[first].flatten(1).norm(dim=1),
    }
    for reduction, units in by.items():
        best = expected[reduction].topk(2).indices
        only = units.choose({first: scores[first]}, 2 / 6, scope="global", within=None, floor=0)
        assert set(only[first.removesuffix(".weight")].nonzero().flatten().tolist()) == set(best.tolist())


def test_death_spreads_forwards_and_backwards():
    model, x = network("preresnet20")
    network_of = wiring_of(model, meta(x))
    norms = [f"layer1.{block}.bn1" for block in range(3)]
    groups = {group.name: group for group in network_of.groups}
    one = torch.arange(16) == 4
    writers = dict.fromkeys(("conv1", *(f"layer1.{block}.conv2" for block in range(3))), one)
    assert all(network_of.spread(writers, silencing=True)[name][4] for name in norms)
    assert not any(network_of.spread(writers, silencing=False)[name][4] for name in norms)
    inner = {"layer1.0.conv2 inputs": torch.ones(groups["layer1.0.conv2 inputs"].size, dtype=torch.bool)}
    assert network_of.spread(inner, silencing=False)["layer1.0.conv1"].all()


def test_outputs_and_what_an_unknown_operation_touches_are_never_cut():
    _, units = units_of("Shifted")
    groups = [group for group in units.wiring.groups if any(part.scored for part in group.slices)]
    assert {group.name for group in groups} == {"first", "inner", "second"}
    everything = {group.name: torch.ones(group.size, dtype=torch.bool) for group in groups}
    gone = units.wiring.removable(units.wiring.spread(everything, silencing=True))
    assert not gone["first"].any()
    assert not gone["second"].any()
    assert gone["inner"].sum() == 6


class Tied(nn.Module):
    """Two layers with one weight, and one layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.twice = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.two.weight = self.one.weight
        self.last = nn.Linear(6, 5)

    def forward(self, x):
        return self.last(self.twice(self.twice(self.two(self.one(x)))))


def test_layers_that_share_weights_are_kept_whole_and_one_that_is_called_twice_is_fed_by_itself():
    network_of = wiring_of(Tied(), meta(torch.randn(2, 6)))
    assert {group.name for group in network_of.groups} == {"twice", "twice inputs", "last", "last inputs"}
    assert network_of.fed_by("twice") == {"twice inputs", "last inputs"}
    everything = {"twice": torch.ones(6, dtype=torch.bool), "twice inputs": torch.ones(6, dtype=torch.bool)}
    assert not network_of.removable(everything)["twice"].any()


@pytest.mark.parametrize("name", ["shuffle", "random", "fresh-init", "inverted", "erk", "magnitude-init"])
def test_controls_of_a_channel_ticket(name):
    task, method = toy_task(epochs=1), tb.OneShot(density=0.5, granularity=tb.Channels(), floor=1)
    ticket = tb.find(task, method, progress=False)
    arm = control(name, Against(task, ticket, 0, None if name != "inverted" else method)).ticket
    whole = name in ("shuffle", "random", "fresh-init", "inverted")
    assert (arm.removed != {}) == whole
    if whole:
        assert {g: len(own) for g, own in arm.removed.items()} == {g: len(own) for g, own in ticket.removed.items()}
        assert (arm.removed == ticket.removed) == (name == "fresh-init")
        units = tb.Channels().units(task.build(0), meta(torch.randn(2, 1, 8, 8)))
        assert units.expand(units.kept(arm.removed), tensors_of(task.build(0))) == arm.mask
        assert arm.mask.counts["0.weight"] == ticket.mask.counts["0.weight"]
    else:
        weights = prunable(task.build(0))
        assert set(arm.mask) == set(weights)
        assert arm.mask.total_kept == sum(ticket.mask.kept(own) for own in weights)


def chosen(model: nn.Module, x: torch.Tensor) -> Mask:
    units = tb.Channels().units(model, lambda network: network(x))
    return units.choose(tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1)


def parametrized(parametrization) -> nn.Module:
    return nn.Sequential(parametrization(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 2))


def softened() -> nn.Module:
    return nn.Sequential(nn.Conv1d(4, 8, 1), nn.Softmax(1), nn.Conv1d(8, 2, 1))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (
            lambda: parametrized(nn.utils.parametrizations.weight_norm),
            "'0' is computed .*remove_parametrizations",
        ),
        (lambda: parametrized(nn.utils.parametrizations.spectral_norm), "'0' is computed anew"),
        (lambda: parametrized(nn.utils.spectral_norm), "'0' is computed anew"),
        (softened, "reach _softmax, where all of them are needed; prune neurons or weights"),
    ],
)
@pytest.mark.filterwarnings("ignore::tombola.structure.prunable_rule.LeftOutWarning", "ignore::FutureWarning")
def test_a_network_of_which_no_channel_can_go_says_why(build, says):
    with pytest.raises(TombolaError, match=says):
        chosen(build(), torch.randn(2, 4, 4))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        raise RuntimeError("no example will do")


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: tb.Channels().check(0.5, "erk"), "shares weights among layers, not channels"),
        (lambda: wiring_of(Branching(), meta(torch.randn(2, 4))), "could not be traced .*no example will do"),
        (
            lambda: tb.find(
                toy_task(), tb.OneShot(density=0.1, score=tb.scores.Random(), granularity=tb.Channels(most=1.0))
            ),
            "no unit of '0|no unit of '3",
        ),
        (
            lambda: next(tb.Iterative(granularity=tb.Channels()).rounds(toy_network())),
            "calling the network on a batch; give batches=",
        ),
        (lambda: kept(units_of("lenet5")[1], {"0": [6]}), "removes 6 of '0', which has 6 units here"),
        (lambda: kept(units_of("lenet5")[1], {"nowhere": [1]}), "which has no units here"),
        (lambda: granularity("channels"), "no granularity 'channels'"),
    ],
)
def test_what_cannot_be_done_is_refused(act, says):
    with pytest.raises(TombolaError, match=says):
        act()


@pytest.mark.parametrize("reduction", ["sum", "mean", "l2"])
def test_a_granularity_is_named_as_it_is_typed(reduction):
    own = tb.Channels(reduction)
    assert granularity(own.name) == own


def test_rounds_in_ones_own_loop_prune_channels():
    model, batches = toy_network(), [(torch.randn(8, 1, 8, 8), torch.arange(8) % 5)]
    for step in tb.Iterative(density=0.5, granularity=tb.Channels(), count=2, floor=1).rounds(model, batches):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with step.attach(optimizer):
            nn.functional.cross_entropy(model(batches[0][0]), batches[0][1]).backward()
            optimizer.step()
    small = tb.shrink(model, step.mask, example=batches[0][0])
    assert small[0].out_channels + small[3].out_channels == 5
