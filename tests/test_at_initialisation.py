"""Scores and methods of the untrained network, against their definitions, by autograd on the mask."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

import tombola as tb
from tombola import TombolaError
from tombola.scores import UnusedWarning
from tombola.testing import LawBroken, check_method

BATCH = (torch.randn(12, 6, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 3)
OTHER = (torch.randn(12, 6, generator=torch.Generator().manual_seed(2)), torch.arange(12) % 3)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def gradients_in_the_mask(model: nn.Module, kept: dict[str, torch.Tensor], batch=BATCH) -> dict[str, torch.Tensor]:
    """∂L/∂c of the loss at weights · c."""
    parameters = dict(model.named_parameters())
    gates = {name: own.float().requires_grad_() for name, own in kept.items()}
    gated = parameters | {name: parameters[name] * gate for name, gate in gates.items()}
    value = F.cross_entropy(functional_call(model, gated, (batch[0],)), batch[1])
    return dict(zip(gates, torch.autograd.grad(value, list(gates.values())), strict=True))


def best(scores: dict[str, torch.Tensor], count: int) -> dict[str, torch.Tensor]:
    threshold = torch.cat([own.flatten() for own in scores.values()]).sort(descending=True).values[count - 1]
    return {name: own >= threshold for name, own in scores.items()}


def by_hand(model: nn.Module, batch, levels: list[float], score, *, regrow: bool) -> list[dict[str, torch.Tensor]]:
    kept = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in tb.prunable(model).items()}
    masks = []
    for level in levels:
        own = score(model, gradients_in_the_mask(model, kept, batch))
        if not regrow:
            own = {name: torch.where(kept[name], values, -torch.inf) for name, values in own.items()}
        kept = best(own, round(level * 72))
        masks.append(kept)
    return masks


def sensitivity(model, gradients):
    return {name: own.abs() for name, own in gradients.items()}


def squared(model, gradients):
    """(∂L/∂w)² from ∂L/∂c = w · ∂L/∂w, where w is not 0."""
    return {name: (own / model.get_parameter(name).detach()).square() for name, own in gradients.items()}


@dataclass(frozen=True)
class Watched:
    """A score that keeps the masks at which it is asked."""

    own: tb.scores.Score
    masks: tuple[list, ...] = ([],)
    needs_data = True

    def __call__(self, model, batches=(), loss=None, **view):
        self.masks[0].append(view["mask"])
        return self.own(model, batches, loss, **view)

    def __hash__(self):
        return 0


@pytest.mark.parametrize(("name", "score"), [("iter-snip", sensitivity), ("force", sensitivity), ("grasp-it", squared)])
def test_rounds_are_the_gradients_in_the_mask_at_the_mask(name, score):
    data = {"train": BATCH, "test": BATCH}
    task = tb.SupervisedTask(small, data, recipe=tb.Recipe(epochs=1, batch=12, precision="float32"))
    method = tb.method(name, density=0.4, rounds=4)
    watched = Watched(method.score, ([],))
    ticket = tb.find(task, replace(method, score=watched), progress=False)
    (batch,) = task.batches("train", 0, 0)
    expected = by_hand(task.build(0), batch, [0.4 ** (t / 4) for t in (1, 2, 3, 4)], score, regrow=method.regrow)
    for own, kept in zip([*watched.masks[0][1:], ticket.mask], expected, strict=True):
        assert all(torch.equal(own[layer], kept[layer]) for layer in kept)


def test_only_force_takes_weights_back_and_only_where_it_says_so():
    check_method(tb.method("force", density=0.1, rounds=5))
    with pytest.raises(LawBroken, match="came back, and the method has no regrow=True"):
        check_method(Undeclared(tb.method("force", density=0.1, rounds=5)))


@dataclass(frozen=True)
class Undeclared:
    own: tb.OneShot
    density_kind = "exact"
    density = 0.1
    granularity = tb.Weights()

    def find(self, task, run):
        return self.own.find(task, run)


@pytest.mark.parametrize(
    "score", [tb.scores.snip, tb.scores.grasp, tb.scores.magnitude, tb.scores.synflow], ids=lambda own: own.name
)
def test_a_weight_that_may_come_back_is_scored_with_its_own_value(score):
    model = small()
    mask = tb.select(tb.scores.magnitude(model), 0.5)
    plain, back = (score(model, [BATCH], F.cross_entropy, mask=mask, regrow=own) for own in (False, True))
    for name in mask:
        assert torch.equal(plain[name][mask[name]], back[name][mask[name]])
        assert not plain[name][~mask[name]].any()
        assert back[name][~mask[name]].any()


def test_taylor_is_the_mean_over_batches_of_squared_gradients_in_the_mask():
    model = small()
    whole = {name: torch.ones_like(weight) for name, weight in tb.prunable(model).items()}
    first, second = (gradients_in_the_mask(model, whole, batch) for batch in (BATCH, OTHER))
    scores = tb.scores.Taylor(batches=2)(model, [BATCH, OTHER], F.cross_entropy)
    for name in whole:
        torch.testing.assert_close(scores[name], (first[name].square() + second[name].square()) / 2)


LAYERS = [
    (nn.Linear(5, 4), (7, 3, 5)),
    (nn.Conv1d(4, 6, 3, padding=2, stride=2, groups=2), (2, 4, 9)),
    (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 2, 5, 5)),
    (nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), (2, 4, 3, 3)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda own: type(own).__name__)
def test_wanda_multiplies_by_the_norm_of_what_each_weight_multiplies(layer, shape):
    """A weight multiplies what its layer gives when it is 1 and all others are 0."""
    torch.manual_seed(0)
    given = torch.randn(shape)
    expected = torch.zeros_like(layer.weight)
    for at in range(layer.weight.numel()):
        probe = torch.zeros_like(layer.weight)
        probe.view(-1)[at] = 1
        names = {"weight": probe, "bias": torch.zeros_like(layer.bias)}
        expected.view(-1)[at] = layer.weight.view(-1)[at].abs() * functional_call(layer, names, (given,)).norm()
    scores = tb.scores.wanda(nn.Sequential(layer), [(given, None)])["0.weight"]
    assert torch.equal(rows_of(layer, scores).argsort(1), rows_of(layer, expected).argsort(1))


def rows_of(layer: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Values of weights, one row an output."""
    if isinstance(layer, nn.ConvTranspose2d):
        halves = values.detach().chunk(layer.groups)
        return torch.cat([half.transpose(0, 1).flatten(1) for half in halves])
    return values.detach().flatten(1)


@pytest.mark.parametrize("scope", ["global", "layerwise"])
def test_wanda_keeps_the_same_share_of_each_outputs_weights_at_every_scope(scope):
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Flatten(), nn.Linear(8, 20))
    mask = tb.select(tb.scores.wanda(model, [(torch.randn(9, 2, 3, 3), None)]), 0.25, scope=scope)
    assert set(mask["0.weight"].flatten(1).sum(1).tolist()) == {4, 5}
    assert mask["2.weight"].sum(1).tolist() == [2] * 20


def test_wanda_names_a_weight_whose_inputs_it_cannot_read():
    model = nn.MultiheadAttention(4, 2)
    with pytest.raises(
        TombolaError, match=r"'in_proj_weight' is not the weight of one; leave it out: Prunable\(exclude"
    ):
        tb.scores.wanda(model, [((torch.randn(3, 2, 4),) * 3, None)])


# What cannot be ranked


class Branched(nn.Module):
    """A network with a layer that its outputs do not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, inputs):
        return self.used(inputs)


SCORES = [
    tb.scores.snip,
    tb.scores.grasp,
    tb.scores.synflow,
    tb.scores.squared_gradient,
    tb.scores.taylor,
]


@pytest.mark.parametrize("score", SCORES, ids=lambda own: own.name)
def test_a_layer_without_a_gradient_is_named_and_scores_nothing(score):
    with pytest.warns(UnusedWarning, match=r"depend on 'unused.weight'.*exclude=\('unused.weight',\)"):
        scores = score(Branched(), [BATCH], F.cross_entropy)
    assert not scores["unused.weight"].any()
    assert scores["used.weight"].any()


@pytest.mark.parametrize("score", SCORES, ids=lambda own: own.name)
def test_a_network_whose_outputs_are_cut_off_cannot_be_ranked(score):
    with pytest.raises(TombolaError, match=r"depends on no prunable weight, as '0.weight'.*detached"):
        score(small(), [BATCH], F.cross_entropy, forward=lambda model, inputs: model(inputs).detach())


@pytest.mark.parametrize("score", SCORES, ids=lambda own: own.name)
def test_gradients_that_are_all_0_cannot_be_ranked(score):
    model = small()
    with pytest.raises(TombolaError, match="every prunable weight is 0, so that nothing can be ranked; check the loss"):
        score(model, [BATCH], F.cross_entropy, forward=lambda own, inputs: own(inputs) * 0)
    with torch.no_grad():
        model[2].weight.zero_()
        model[0].weight.zero_()
    with pytest.raises(TombolaError, match=r"ranked; '0.weight', '2.weight' is 0 throughout: give floor=1"):
        score(model, [BATCH], F.cross_entropy, forward=lambda own, inputs: own(inputs) * 0)


def test_scores_that_are_nan_name_their_layer():
    scores = tb.scores.snip(small(), [BATCH], lambda outputs, targets: outputs.sum() * torch.nan)
    with pytest.raises(TombolaError, match=r"the scores of '0.weight' contain NaN; check the loss and the data"):
        tb.select(scores, 0.5)
