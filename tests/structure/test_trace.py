"""What a trace follows: layers along the last axis, norms and scales of all kinds, gates, layers of training mode."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from tombola.structure import PartUnits, Prunable, SeparateChannels, prunable, wiring_of


class Net(nn.Module):
    """A network from a function and layers."""

    def __init__(self, forward, **parts) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


class NormAct(nn.BatchNorm2d):
    """A batch norm with the activation inside."""

    def forward(self, x):
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps)
        return F.silu(x)


class Standardised(nn.Conv2d):
    """A convolution that standardises its weight."""

    def forward(self, x):
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return F.conv2d(x, w, self.bias, padding=self.padding)


class Padded(nn.Conv2d):
    """A convolution of its own class that multiplies with its weight."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)


def scale(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def linear(*sizes: int) -> nn.Linear:
    return nn.Linear(*sizes)


def conv(a: int, b: int, kernel: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(a, b, kernel, padding=kernel // 2, **options)


def chosen(x):
    return x.view(len(x), 2, -1, 1, 1).softmax(1)


def pooled(x):
    return x.mean((2, 3))


IMAGES, TOKENS = (3, 8, 8), (4, 5)
FOLLOWED = {
    "tokens": (TOKENS, lambda s, x: s.c(F.gelu(s.a(x))).mean(1), lambda: {"a": linear(5, 8), "c": linear(8, 3)}, {"a"}),
    "a gate on tokens": (
        TOKENS,
        lambda s, x: s.c(F.silu(s.a(x)) * s.b(x)).mean(1),
        lambda: {"a": linear(5, 8), "b": linear(5, 8), "c": linear(8, 3)},
        {"a", "b"},
    ),
    "scales without a layer": (
        TOKENS,
        lambda s, x: s.c((h := s.a(x)) + s.gamma * s.b(h)).mean(1),
        lambda: {"a": linear(5, 8), "b": linear(8, 8), "gamma": scale(8), "c": linear(8, 3)},
        {"a", "b"},
    ),
    "an activation in the norm": (
        IMAGES,
        lambda s, x: s.c(pooled(s.n(s.a(x)))),
        lambda: {"a": conv(3, 8), "n": NormAct(8), "c": linear(8, 3)},
        {"a"},
    ),
    "instance norm and slopes": (
        IMAGES,
        lambda s, x: s.c(pooled(s.b(s.p(s.n(s.a(x)))))),
        lambda: {
            "a": conv(3, 8),
            "n": nn.InstanceNorm2d(8, affine=True),
            "p": nn.PReLU(8),
            "b": conv(8, 6),
            "c": linear(6, 3),
        },
        {"a", "b"},
    ),
    "a norm without scale": (
        IMAGES,
        lambda s, x: s.c(pooled(F.relu(s.n(s.a(x))))),
        lambda: {"a": conv(3, 8), "n": nn.BatchNorm2d(8, affine=False), "c": linear(8, 3)},
        {"a"},
    ),
    "channels last": (
        IMAGES,
        lambda s, x: s.c(pooled(s.b(F.gelu(s.a(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2))),
        lambda: {"a": linear(3, 8), "b": linear(8, 6), "c": linear(6, 3)},
        {"a", "b"},
    ),
    "a gated linear unit": (
        IMAGES,
        lambda s, x: s.c(pooled(F.glu(s.a(x), 1))),
        lambda: {"a": conv(3, 8), "c": linear(4, 3)},
        {"a"},
    ),
    "a packed gate": (
        TOKENS,
        lambda s, x: s.c((h := s.a(x).chunk(2, -1))[0] * F.gelu(h[1])).mean(1),
        lambda: {"a": linear(5, 16), "c": linear(8, 3)},
        {"a"},
    ),
    "three parts": (
        IMAGES,
        lambda s, x: sum(read(pooled(own)) for read, own in zip((s.c, s.d, s.e), s.a(x).chunk(3, 1), strict=True)),
        lambda: {"a": conv(3, 24), "c": linear(8, 3), "d": linear(8, 3), "e": linear(8, 3)},
        {"a"},
    ),
    "a squeeze": (
        IMAGES,
        lambda s, x: s.c(pooled((h := F.relu(s.a(x))) * s.b(h.mean((2, 3), keepdim=True)).sigmoid())),
        lambda: {"a": conv(3, 8), "b": conv(8, 8, 1), "c": linear(8, 3)},
        {"a"},
    ),
    "standardised": (
        IMAGES,
        lambda s, x: s.c(pooled(F.relu(s.a(x)))),
        lambda: {"a": Standardised(3, 8, 3, padding=1), "c": linear(8, 3)},
        {"a"},
    ),
    "a weight times a number": (
        IMAGES,
        lambda s, x: s.c(pooled(s.b(F.relu(F.conv2d(x, s.a.weight * 0.5, s.a.bias))))),
        lambda: {"a": conv(3, 8), "b": conv(8, 6), "c": linear(6, 3)},
        {"a", "b"},
    ),
    "called twice": (
        IMAGES,
        lambda s, x: s.c(pooled(F.relu(s.b(s.a(x))) + F.relu(s.b(s.a(x.flip(2)))))),
        lambda: {"a": conv(3, 8), "b": conv(8, 6), "c": linear(6, 3)},
        {"a", "b"},
    ),
    "a layer beside in training": (
        IMAGES,
        lambda s, x: (s.c(pooled(h := F.relu(s.a(x)))), *([s.aux(pooled(h))] if s.training else [])),
        lambda: {"a": conv(3, 8), "c": linear(8, 3), "aux": linear(8, 3)},
        {"a"},
    ),
    "pixels of channels": (
        IMAGES,
        lambda s, x: s.c(pooled(F.relu(s.b(F.pixel_shuffle(s.a(F.pixel_unshuffle(x, 2)), 2))))),
        lambda: {"a": conv(12, 16), "b": conv(4, 6), "c": linear(6, 3)},
        {"a", "b"},
    ),
    "shuffled groups": (
        IMAGES,
        lambda s, x: s.c(pooled(s.b(F.channel_shuffle(F.relu(s.a(x)), 2)))),
        lambda: {"a": conv(3, 16), "b": conv(16, 12, groups=2), "c": linear(12, 3)},
        {"a", "b"},
    ),
    "groups shuffled by hand": (
        IMAGES,
        lambda s, x: s.c(pooled(s.b((h := s.a(x)).view(len(h), 2, -1, *IMAGES[1:]).transpose(1, 2).reshape(h.shape)))),
        lambda: {"a": conv(3, 16), "b": conv(16, 12, groups=2), "c": linear(12, 3)},
        {"a", "b"},
    ),
    "halves": (
        IMAGES,
        lambda s, x: s.c(pooled((h := s.a(x))[:, : (n := h.shape[1] // 2)] * s.b(h[:, n:]))),
        lambda: {"a": conv(3, 16), "b": conv(8, 8), "c": linear(8, 3)},
        {"a", "b"},
    ),
    "a gate of half the size": (
        IMAGES,
        lambda s, x: s.c(pooled((h := s.a(x).split(s.a.out_channels // 2, 1))[0] * h[1].sigmoid())),
        lambda: {"a": conv(3, 16), "c": linear(8, 3)},
        {"a"},
    ),
    "the larger of two": (
        IMAGES,
        lambda s, x: s.c(pooled(torch.maximum((h := s.a(x))[:, ::2], h[:, 1::2]))),
        lambda: {"a": conv(3, 16), "c": linear(8, 3)},
        {"a"},
    ),
    "paths to choose from": (
        IMAGES,
        lambda s, x: s.c(pooled((torch.stack([s.a(x), s.b(x)], 1) * chosen(s.d(pooled(x)[..., None, None]))).sum(1))),
        lambda: {"a": conv(3, 8), "b": conv(3, 8), "d": conv(3, 16, 1), "c": linear(8, 3)},
        {"a", "b", "d"},
    ),
    "written in place": (
        IMAGES,
        lambda s, x: s.c(pooled(s.a(x).add_(s.b(x)).relu_())),
        lambda: {"a": conv(3, 8), "b": conv(3, 8), "c": linear(8, 3)},
        {"a", "b"},
    ),
}


def first(outputs):
    return outputs[0] if isinstance(outputs, tuple) else outputs


def meta(x):
    return lambda model: model(x.to(next(model.parameters()).device))


def dead_channels(wiring, layers) -> dict[str, tuple[int, ...]]:
    """The channels that go with the second one of each of these layers."""
    by_group = wiring.by_group(wiring.classes(wiring.by_groups))
    chosen = {int(by_group[layer][1]) for layer in layers}
    groups = {group.name for group in wiring.groups if not group.name.endswith(" inputs")}
    dead = {name: tuple(i for i, n in enumerate(own.tolist()) if n in chosen) for name, own in by_group.items()}
    return {name: own for name, own in dead.items() if own and name in groups}


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_is_followed_is_cut_and_computes_the_same_before_and_after_a_step(name):
    torch.manual_seed(0)
    shape, forward, parts, cut = FOLLOWED[name]
    model = Net(forward, **parts()).double().eval()
    for parameter in model.parameters():
        parameter.data.normal_()
    x, other = (torch.randn(5, *shape, dtype=torch.float64) for _ in range(2))
    units = SeparateChannels().units(model, meta(x))
    mask = units.expand(units.kept(dead_channels(units.wiring, cut)), dict(model.named_parameters()))
    twin = copy.deepcopy(model)
    small = tb.shrink(model, mask, example=x)
    left = tb.shrinking.preview(model, mask, x).mask
    for layer in cut:
        assert len(small.get_submodule(layer).weight) < len(model.get_submodule(layer).weight), layer
    for _ in range(2):
        outputs = []
        for network, own in ((twin, mask), (small, left)):
            optimizer = torch.optim.SGD(network.parameters(), 0.01)
            with tb.attach(own, network, optimizer):
                outputs.append(first(network(other)))
                outputs[-1].square().mean().backward()
                optimizer.step()
        assert torch.allclose(*outputs, rtol=1e-9, atol=1e-9)


KEPT = {
    "a mean over channels": lambda s, x: s.c(pooled((h := s.a(x)) * h.mean(1, keepdim=True))),
    "read by number": lambda s, x: s.c(pooled(s.a(x)[:, [1, 0, 3, 2, 5, 4, 7, 6]])),
    "a view that another sees": lambda s, x: s.c(pooled(filled(s.a(x)))),
    "a constant of their number": lambda s, x: s.c(pooled(s.a(x) * torch.arange(8, device=x.device)[:, None, None])),
    "sorted": lambda s, x: s.c(pooled(s.a(x).sort(1).values)),
    "halves by a number": lambda s, x: s.c(
        pooled(torch.cat([(h := s.a(x))[:, :4], F.max_pool2d(h[:, 4:], 3, 1, 1)], 1))
    ),
    "a written shape": lambda s, x: s.c(pooled(s.a(x).view(-1, 8, *IMAGES[1:]))),
    "rolled": lambda s, x: s.c(pooled(s.a(x).roll(1, 1))),
}


def filled(x):
    whole = torch.zeros(len(x), 8, *x.shape[2:], device=x.device, dtype=x.dtype)
    whole[:, :4] = x[:, :4]
    whole[:, 4:].copy_(x[:, 4:])
    return whole


@pytest.mark.parametrize("name", KEPT)
def test_channels_that_are_used_by_number_or_together_stay(name):
    model = Net(KEPT[name], a=conv(3, 8), c=linear(8, 3)).eval()
    wiring = wiring_of(model, meta(torch.randn(2, *IMAGES)))
    everything = {group.name: torch.ones(group.size, dtype=torch.bool) for group in wiring.groups}
    assert not wiring.removable(everything)["a"].any()
    assert wiring.lost["a"]


def test_only_channels_whose_number_is_written_in_the_code_stay():
    model = Net(lambda s, x: s.c(s.b(s.a(x)).view(-1, 8 * 64)), a=conv(3, 8), b=conv(8, 8), c=linear(512, 3)).eval()
    units = tb.Channels().units(model, meta(torch.randn(2, *IMAGES)))
    assert set(units.families.sizes) == {"a"}
    assert units.wiring.lost == {"b": "code that has their number written in it"}


def test_channels_that_emit_a_constant_when_they_are_dead_stay_and_the_reason_is_said():
    model = Net(lambda s, x: s.c(pooled(F.relu(s.a(x)) + 1)), a=conv(3, 8), c=linear(8, 3)).eval()
    with pytest.raises(tb.TombolaError, match="its channels reach a constant that is added to them, where all"):
        tb.Channels().units(model, meta(torch.randn(2, *IMAGES))).choose(
            tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1
        )


def test_each_group_of_a_convolution_keeps_equally_many_channels():
    model = Net(
        lambda s, x: s.c(pooled(F.relu(s.b(s.a(x))))), a=conv(3, 16), b=conv(16, 24, groups=4), c=linear(24, 3)
    ).double()
    x = torch.randn(2, *IMAGES, dtype=torch.float64)
    units = tb.Channels().units(model, meta(x))
    assert units.families.sizes == {"a": 4, "b": 6}
    kept = units.choose(tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1)
    small = tb.shrink(model, units.expand(kept, dict(model.named_parameters())), example=x)
    assert (small.a.out_channels, small.b.out_channels, small.b.groups) == (8, 12, 4)
    assert small.b.weight.shape[:2] == (12, 2)


def test_whole_groups_go_where_a_norm_holds_the_channels_of_each_together():
    model = Net(
        lambda s, x: s.c(pooled(F.relu(s.n(s.b(s.a(x)))))),
        a=conv(3, 16),
        b=conv(16, 16, groups=4),
        n=nn.GroupNorm(4, 16),
        c=linear(16, 3),
    )
    units = tb.Channels().units(model, meta(torch.randn(2, *IMAGES)))
    assert units.families.sizes == {"a": 4}
    assert set(units.families.members["a"]) >= {"a", "b", "b inputs"}


def test_a_layer_that_no_call_shows_keeps_only_what_it_may_read():
    model = Net(
        lambda s, x: s.c(pooled(s.b(s.a(x)))), a=conv(3, 8), b=conv(8, 6), c=linear(6, 3), unseen=nn.Conv2d(6, 2, 1)
    )
    wiring = wiring_of(model, meta(torch.randn(2, *IMAGES)))
    everything = {group.name: torch.ones(group.size, dtype=torch.bool) for group in wiring.groups}
    gone = wiring.removable(everything)
    assert gone["a"].sum() == 7
    assert not gone["b"].any()
    assert wiring.lost == {"b": "'Conv2d', which is not called"}


def test_neurons_need_no_names():
    numbered = nn.Sequential(linear(5, 8), nn.GELU(), nn.Dropout(), linear(8, 5))
    model = Net(
        lambda s, x: s.head((x + s.mlp(s.norm(x))).mean(1)), mlp=numbered, norm=nn.LayerNorm(5), head=linear(5, 3)
    )
    units = PartUnits("neuron").units(model, meta(torch.randn(2, *TOKENS)))
    assert [(group.name, group.size) for group in units.groups] == [("mlp.3", 8)]


def test_a_weight_that_is_standardised_is_no_weight_to_prune_and_one_of_a_class_of_ones_own_is():
    model = nn.Sequential(Standardised(3, 8, 3), Padded(8, 8, 3), conv(8, 4))
    with pytest.warns(UserWarning, match=r"cannot lose any: '0\.weight'"):
        assert list(prunable(model)) == ["1.weight", "2.weight"]
    with pytest.raises(tb.TombolaError, match=r"'0\.weight' cannot be pruned"):
        Prunable(include=("0.*",))(model)


@pytest.mark.filterwarnings("ignore:.*cannot lose any")
def test_an_embedding_that_is_the_last_layer_too_is_pruned_when_asked_only():
    model = nn.Sequential(nn.Embedding(9, 4), linear(4, 4), nn.Linear(4, 9, bias=False))
    model[2].weight = model[0].weight
    assert list(prunable(model)) == ["1.weight"]
    assert list(Prunable(include=("0.*",))(model)) == ["0.weight"]
