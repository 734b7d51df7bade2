"""Scores and methods of the untrained network, against their definitions, by autograd on the mask."""

from __future__ import annotations

import copy
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


def by_hand(model: nn.Module, batches, levels: list[float], score, *, regrow: bool) -> list[dict[str, torch.Tensor]]:
    kept = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in tb.structure.prunable(model).items()}
    masks = []
    for batch, level in zip(batches, levels, strict=True):
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
def test_rounds_are_the_gradients_in_the_mask_at_the_mask_on_a_batch_of_their_own(name, score):
    data = {"train": BATCH, "test": BATCH}
    task = tb.SupervisedTask(small, data, recipe=tb.Recipe(epochs=1, batch=6, precision="float32"))
    method = tb.method(name, density=0.4, rounds=4)
    watched = Watched(method.score, ([],))
    ticket = tb.find(task, replace(method, score=watched), progress=False)
    drawn = [next(iter(task.batches("train", 0, turn))) for turn in range(4)]
    assert not torch.equal(drawn[0][0], drawn[1][0])
    expected = by_hand(task.build(0), drawn, [0.4 ** (t / 4) for t in (1, 2, 3, 4)], score, regrow=method.regrow)
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
    granularity = tb.structure.Weights()

    def find(self, task, run):
        return self.own.find(task, run)


@pytest.mark.parametrize("score", [tb.scores.snip, tb.scores.magnitude, tb.scores.synflow], ids=lambda own: own.name)
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
    whole = {name: torch.ones_like(weight) for name, weight in tb.structure.prunable(model).items()}
    first, second = (gradients_in_the_mask(model, whole, batch) for batch in (BATCH, OTHER))
    scores = tb.scores.Taylor(batches=2)(model, [BATCH, OTHER], F.cross_entropy)
    for name in whole:
        torch.testing.assert_close(scores[name], (first[name].square() + second[name].square()) / 2)


def normed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5), nn.Dropout(0.2), nn.Tanh(), nn.Linear(5, 3))


def unrolled(model: nn.Module, batches, score: tb.scores.ProsPr) -> dict[str, torch.Tensor]:
    """|∂L/∂m| at m = 1 through one graph of all steps; first-order: one in which the steps' gradients are constants."""
    names = list(tb.structure.prunable(model))
    gates = {name: torch.ones_like(model.get_parameter(name), requires_grad=True) for name in names}
    point = {name: own * gates[name] if name in gates else own * 1 for name, own in model.named_parameters()}
    full, velocity = score.gradient == "full", dict.fromkeys(point, 0.0)
    for step in range(score.steps + 1):
        inputs, targets = batches[step % len(batches)]
        torch.manual_seed(step)
        value = F.cross_entropy(functional_call(model, point, (inputs,)), targets)
        if step < score.steps:
            found = torch.autograd.grad(value, list(point.values()), create_graph=full, retain_graph=True)
            velocity = {n: score.momentum * velocity[n] + g for n, g in zip(point, found, strict=True)}
            point = {n: own - score.lr * velocity[n] for n, own in point.items()}
    return dict(zip(names, (g.abs() for g in torch.autograd.grad(value, list(gates.values()))), strict=True))


@pytest.mark.parametrize(
    "score",
    [
        tb.scores.ProsPr(),
        tb.scores.ProsPr(lr=0.5, momentum=0.9),
        tb.scores.ProsPr(new_data=False),
        tb.scores.ProsPr(gradient="first-order", lr=0.5, momentum=0.9),
        tb.scores.ProsPr(steps=1, lr=1.0),
    ],
    ids=str,
)
def test_prospr_is_the_gradient_in_the_mask_through_the_steps(score):
    model, batches = normed(), [BATCH, OTHER]
    expected = unrolled(copy.deepcopy(model), batches if score.new_data else batches[:1], score)
    found = score(model, batches, F.cross_entropy)
    for name, own in expected.items():
        torch.testing.assert_close(found[name], own, rtol=1e-4, atol=1e-7)
        assert (found[name] - tb.scores.snip(model, batches, F.cross_entropy)[name]).abs().max() > 1e-3


def test_prospr_without_a_step_is_refused():
    with pytest.raises(TombolaError, match="steps is 0; give at least 1, or use snip"):
        tb.scores.ProsPr(steps=0)


class Once(torch.autograd.Function):
    """An operation whose author says that its gradient has none."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


@pytest.mark.parametrize("score", [tb.scores.prospr, tb.scores.grasp], ids=lambda own: own.name)
def test_a_function_that_is_differentiable_once_is_refused_with_what_remains(score):
    def call(model, inputs):
        return Once.apply(model(inputs))

    sentence = (
        f"'{score.name}' needs a second derivative, which a function marked @once_differentiable does not have; use"
    )
    with pytest.raises(TombolaError, match=f"{sentence} .*prospr with gradient='first-order'"):
        score(small(), [BATCH], F.cross_entropy, forward=call)
    assert tb.scores.ProsPr(gradient="first-order")(small(), [BATCH], F.cross_entropy, forward=call)


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
    tb.scores.prospr,
]


@pytest.mark.parametrize("score", SCORES, ids=lambda own: own.name)
def test_a_layer_without_a_gradient_is_named_and_scores_nothing(score):
    with pytest.warns(UnusedWarning, match=r"depend on 'unused.weight'.*exclude=\('unused.weight',"):
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


class InADict(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = small()

    def forward(self, inputs):
        return {"logits": self.body(inputs), "count": torch.tensor(len(inputs))}


def test_grasp_cools_outputs_that_lie_in_an_object():
    expected = tb.scores.grasp(small(), [BATCH], F.cross_entropy)
    scores = tb.scores.grasp(InADict(), [BATCH], lambda outputs, targets: F.cross_entropy(outputs["logits"], targets))
    assert all(torch.equal(scores[f"body.{name}"], own) for name, own in expected.items())


@pytest.mark.parametrize("score", [tb.scores.magnitude, tb.scores.snip, tb.scores.random])
def test_a_network_without_values_is_refused(score):
    with pytest.raises(TombolaError, match=r"on the device meta, .* to_empty\(device=…\)"):
        score(small().to("meta"), [BATCH], F.cross_entropy)
