"""Streams under layer and RMS norms: narrower, and the same function as that of the network with zeros."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from tombola.shrinking import load_small, save_small
from tombola.structure import AllInDouble, PartialNorm, granularity, norm_form

WIDTH = 12


class Branch(nn.Module):
    """A feed-forward part behind its norm, beside a shortcut; or before it."""

    def __init__(self, norm: nn.Module, *, post: bool = False) -> None:
        super().__init__()
        self.norm, self.post = norm, post
        self.fc1, self.fc2 = nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH)

    def forward(self, x):
        if self.post:
            return self.norm(x + self.fc2(F.gelu(self.fc1(x))))
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


class Tokens(nn.Module):
    """Patches, a token for the class and positions."""

    def __init__(self, norm=nn.LayerNorm, post: bool = False) -> None:
        super().__init__()
        self.patches = nn.Linear(5, WIDTH)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(torch.randn(1, 4, WIDTH))
        self.branches = nn.Sequential(*(Branch(norm(WIDTH), post=post) for _ in range(2)))
        self.norm, self.head = norm(WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), self.patches(x)], 1) + self.places
        return self.head(self.norm(self.branches(x))[:, 0])


class Words(nn.Module):
    """Embeddings of words and places, normed before they enter the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(9, WIDTH), nn.Embedding(7, WIDTH)
        self.norm, self.branch, self.head = nn.LayerNorm(WIDTH), Branch(nn.LayerNorm(WIDTH)), nn.Linear(WIDTH, 3)

    def forward(self, x):
        numbers = torch.arange(x.shape[1], device=x.device)
        return self.head(self.branch(self.norm(self.words(x) + self.places(numbers))).mean(1))


class SingleNorm(nn.Module):
    """An RMS norm that computes in float32, whatever it is given."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(size)), 1e-6

    def forward(self, x):
        found = x.to(torch.float32)
        found = found * torch.rsqrt(found.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * found.to(x.dtype)


class ImageNorm(nn.LayerNorm):
    """A layer norm over the channels of images."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Images(nn.Module):
    """A depthwise convolution, a norm along the last axis, two layers, a scale, and a norm along the second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, WIDTH, 2, 2), ImageNorm(WIDTH)
        self.depthwise, self.norm = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH), nn.LayerNorm(WIDTH)
        self.fc1, self.fc2, self.scale = nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH), nn.Parameter(torch.rand(WIDTH))
        self.last, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x):
        x = self.stem_norm(self.stem(x))
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        x = x + (self.scale * self.fc2(F.gelu(self.fc1(y)))).permute(0, 3, 1, 2)
        return self.head(self.last(x.mean((2, 3))))


def tokens(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 5)


NETWORKS = {
    "norms before": (Tokens, tokens),
    "norms behind": (lambda: Tokens(post=True), tokens),
    "RMS norms": (lambda: Tokens(nn.RMSNorm), tokens),
    "norms in float32": (lambda: Tokens(SingleNorm), tokens),
    "without shift": (lambda: Tokens(lambda size: nn.LayerNorm(size, bias=False)), tokens),
    "embeddings": (Words, lambda count: torch.randint(9, (count, 7))),
    "images": (Images, lambda count: torch.randn(count, 3, 6, 6)),
}


def made(name: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network whose norms all differ from new ones, an example, and other inputs."""
    torch.manual_seed(0)
    build, inputs = NETWORKS[name]
    model = build()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model, inputs(2), inputs(3)


def half(model: nn.Module, x: torch.Tensor, density: float = 0.5) -> tuple[tb.Mask, dict[str, int]]:
    units = tb.Channels(streams=True).units(model, lambda network: network(x.to(next(network.parameters()).device)))
    kept = units.choose(tb.scores.magnitude(model), density, scope="layerwise", within=None, floor=1)
    return units.expand(kept, dict(model.named_parameters())), {name: kept.kept(name) for name in kept}


def gap(one: nn.Module, other: nn.Module, x: torch.Tensor) -> float:
    with AllInDouble():
        outputs = [
            copy.deepcopy(own).double().eval()(x.double() if x.is_floating_point() else x) for own in (one, other)
        ]
    return float((outputs[0] - outputs[1]).detach().abs().max())


def stepped(model: nn.Module, mask: tb.Mask, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> nn.Module:
    with tb.attach(mask, model, optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(model(x), torch.arange(len(x))).backward()
            optimizer.step()
    return model


def norms_in(model: nn.Module) -> list[PartialNorm]:
    return [own for own in model.modules() if isinstance(own, PartialNorm)]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_narrower_stream_is_the_masked_one_also_after_steps(name, tmp_path):
    model, x, others = made(name)
    mask, kept = half(model, x)
    assert WIDTH // 2 in kept.values()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    stepped(model, mask, optimizer, x)
    twin, its = copy.deepcopy((model, optimizer))
    small = tb.shrink(model, mask, optimizer, x)
    assert all(len(norm.weight) == WIDTH // 2 and norm.whole == WIDTH for norm in norms_in(small))
    assert len(norms_in(small)) == sum(norm_form(own) is not None for own in model.modules())
    assert gap(twin, small, others) < 1e-12
    plan = tb.shrinking.preview(twin, mask, x)
    assert plan.mask == tb.Mask({})
    for network, own in ((twin.double(), its), (small.double(), optimizer)):
        own.load_state_dict(own.state_dict())
        with AllInDouble():
            stepped(network, mask if network is twin else tb.Mask({}), own, x.double() if x.is_floating_point() else x)
    assert gap(twin, small, others) < 1e-12
    save_small(tmp_path, small.float(), plan)
    assert gap(load_small(tmp_path, NETWORKS[name][0]), small.float(), others) == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stream_stays_whole_unless_it_is_asked_for(name):
    model, x, _ = made(name)
    units = tb.Channels().units(model, lambda network: network(x.to(next(network.parameters()).device)))
    assert set(units.families.sizes.values()) == {16}
    assert granularity("channel:streams") == tb.Channels(streams=True)
    assert tb.Channels(streams=True).name == "channel:streams"


def test_a_narrower_stream_can_be_narrowed_again():
    model, x, others = made("norms before")
    small = tb.shrink(model, half(model, x)[0], example=x)
    mask, _ = half(small, x)
    smaller = tb.shrink(small, mask, example=x)
    assert {(len(norm.weight), norm.whole) for norm in norms_in(smaller)} == {(WIDTH // 4, WIDTH)}
    for name, parameter in small.named_parameters():
        parameter.data *= mask.get(name, 1)
    assert gap(small, smaller, others) < 1e-12


class Unscaled(Tokens):
    """A norm without a scale gives something for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)


class Lit(Tokens):
    """What is normed is a sigmoid, which is not zero for dead channels."""

    def forward(self, x):
        return self.head(self.norm(self.branches(self.patches(x)).sigmoid())[:, 0])


class Called(Tokens):
    """A norm that is called as a function."""

    def forward(self, x):
        self.branches(self.patches(x))
        x = F.layer_norm(self.patches(x), (WIDTH,), self.norm.weight, self.norm.bias)
        return self.head(x.mean(1))


class Counting(Tokens):
    """Its code takes the width of a layer from the width of the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.beside, self.back = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        x = self.patches(x)
        count, places, width = x.shape
        x = x + self.back(self.beside(self.norm(x)).sigmoid().reshape(count, places, width // 4, 4).flatten(2))
        return self.head(self.branches(x).mean(1))


@pytest.mark.parametrize(
    ("build", "reason"),
    [(Unscaled, "layer_norm"), (Called, "layer_norm"), (Counting, "their number written"), (Lit, "LayerNorm")],
)
def test_a_stream_stays_whole_where_it_would_be_another_function(build, reason):
    torch.manual_seed(0)
    model, x = build(), tokens(2)
    units = tb.Channels(streams=True).units(model, lambda network: network(x.to(next(network.parameters()).device)))
    assert set(units.families.sizes.values()) == {16}
    lost = {**units.wiring.lost, **units.wiring.unlisted}
    assert build is Called or reason in lost["patches"]
    small = tb.shrink(model, half(model, x)[0], example=x)
    assert not norms_in(small)


def test_a_channel_of_which_a_norm_gives_nothing_still_counts_in_its_statistics():
    model, x, others = made("norms before")
    parameters = dict(model.named_parameters())
    gone = {name: torch.ones_like(parameters[name], dtype=torch.bool) for name in ("norm.weight", "norm.bias")}
    gone |= {"head.weight": torch.ones(3, WIDTH, dtype=torch.bool)}
    for own in gone.values():
        own[..., 2] = False
    mask = tb.Mask.of(gone)
    with pytest.warns(tb.shrinking.ShrinkWarning):
        small = tb.shrink(model, mask, example=x)
    for name in mask:
        parameters[name].data *= mask[name]
    assert small.patches.out_features == WIDTH
    assert gap(model, small, others) < 1e-12


def test_a_channel_of_a_stream_is_one_unit_wherever_it_is():
    model, x, _ = made("norms before")
    units = tb.Channels(streams=True).units(model, lambda network: network(x.to(next(network.parameters()).device)))
    for name in ("patches", "places", "token", "norm", "branches.0.norm", "branches.1.fc2", "branches.1.fc1 inputs"):
        assert units.families.members["patches"][name].tolist() == list(range(WIDTH))
