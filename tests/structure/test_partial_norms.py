"""Norms of all channels that have lost some: known by what they compute, and the same function as with zeros."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from tombola.shrinking import check_equal
from tombola.structure import AllInDouble, PartialNorm, norm_form
from tombola.structure.norm_forms import NormForm, ResponseForm

SIZE, KEPT, GONE = 6, [0, 2, 3, 5], [1, 4]


class ImageNorm(nn.LayerNorm):
    """A layer norm over the channels of images."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Single(nn.Module):
    """An RMS norm that computes in float32, whatever it is given."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), 1e-6

    def forward(self, x):
        found = x.to(torch.float32)
        return self.weight * (found * torch.rsqrt(found.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class Response(nn.Module):
    """A global response norm, along the last axis or the second one."""

    def __init__(self, size: int, axis: int = -1) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.eps, self.axis, self.places = 1e-5, axis, (1, 2) if axis == -1 else (2, 3)

    def forward(self, x):
        shape = [1] * 4
        shape[self.axis] = -1
        sizes = x.norm(p=2, dim=self.places, keepdim=True)
        found = x * (sizes / (sizes.mean(self.axis, keepdim=True) + self.eps))
        return x + torch.addcmul(self.bias.view(shape), self.weight.view(shape), found)


class Written(nn.Module):
    """One with its shape and what it adds written in its code."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(1, 1, 1, size)), nn.Parameter(torch.zeros(1, 1, 1, size))

    def forward(self, x):
        sizes = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        return self.weight * (x * (sizes / (sizes.mean(-1, keepdim=True) + 1e-6))) + self.bias + x


NORMS = [
    (nn.LayerNorm(SIZE), (2, SIZE)),
    (nn.RMSNorm(SIZE), (2, 3, SIZE)),
    (ImageNorm(SIZE), (2, SIZE, 2, 3)),
    (Single(SIZE), (2, 3, SIZE)),
    (Response(SIZE), (2, 3, 2, SIZE)),
    (Response(SIZE, 1), (2, SIZE, 2, 3)),
    (Written(SIZE), (2, 3, 2, SIZE)),
]


def pair(norm: nn.Module, shape: tuple[int, ...]) -> tuple[nn.Module, PartialNorm, torch.Tensor]:
    """A norm, the one of some of its channels, and an input without the others."""
    torch.manual_seed(0)
    norm, form = copy.deepcopy(norm).double(), norm_form(norm)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    own = {name: nn.Parameter(parameter[..., KEPT].detach()) for name, parameter in norm.named_parameters()}
    x = torch.randn(shape, dtype=torch.float64).index_fill_(form.axis, torch.tensor(GONE), 0)
    return norm, PartialNorm(own["weight"], own.get("bias"), form, SIZE), x


@pytest.mark.parametrize(("norm", "shape"), NORMS)
def test_a_partial_norm_gives_what_the_whole_one_gives_for_zeros(norm, shape):
    norm, part, x = pair(norm, shape)
    places, axis = torch.tensor(KEPT), part.form.axis
    with AllInDouble():
        expected = norm(x).index_select(axis, places)
        assert torch.allclose(part(x.index_select(axis, places)), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("norm", "shape"), NORMS)
def test_it_keeps_the_precision_that_it_is_given(norm, shape, dtype):
    norm, part, x = pair(norm, shape)
    norm, part, x = norm.to(dtype), part.to(dtype), x.to(dtype)
    places, axis = torch.tensor(KEPT), part.form.axis
    expected, given = norm(x).index_select(axis, places), part(x.index_select(axis, places))
    assert given.dtype == expected.dtype == dtype
    assert torch.allclose(given, expected, rtol=4 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)


class Doubled(nn.LayerNorm):
    """A norm of a class of its own that computes something else."""

    def forward(self, x):
        return 2 * super().forward(x)


class Shifted(Single):
    """One whose scale is its weight and 1, so that a channel without weight is not silent."""

    def forward(self, x):
        return super().forward(x) * (1 + 1 / self.weight)


class Coarse(Single):
    """One that computes in half precision."""

    def forward(self, x):
        return super().forward(x.half().to(x.dtype))


def test_a_norm_is_known_by_what_it_computes():
    for other in (Doubled(4), Shifted(4), nn.GroupNorm(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)):
        assert norm_form(other) is None
    assert norm_form(ImageNorm(4)) == NormForm(1, True, 1e-5)
    assert norm_form(Single(4)) == NormForm(-1, False, 1e-6, torch.float32)
    assert norm_form(Coarse(4)) is None
    assert norm_form(Response(4, 1)) == ResponseForm(1, 1e-5)
    assert norm_form(Written(4)) == ResponseForm(-1, 1e-6)
    with torch.device("meta"):
        assert norm_form(Single(4)) == NormForm(-1, False, 1e-6, torch.float32)


def test_what_asks_for_a_lower_precision_gets_double_precision():
    x = torch.ones(2, dtype=torch.float64)
    with AllInDouble():
        for own in (x.to(torch.float32), x.float(), x.half(), x.bfloat16(), torch.zeros(1, dtype=torch.float16)):
            assert own.dtype == torch.float64
        assert x.long().dtype == torch.int64
        assert F.softmax(x, -1, dtype=torch.float32).dtype == torch.float64
    assert x.float().dtype == torch.float32


class Images(nn.Module):
    """Blocks of ConvNeXt V2: a layer norm, two layers, and a global response norm between these."""

    def __init__(self, response: type[nn.Module]) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 2, 2), nn.LayerNorm(8)
        self.wide, self.response, self.back = nn.Linear(8, 16), response(16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        x = x + self.back(self.response(F.gelu(self.wide(self.norm(x)))))
        return self.head(x.mean((1, 2)))


@pytest.mark.parametrize("response", [Response, Written])
def test_hidden_neurons_under_a_response_norm_go_where_streams_are_asked_for(response):
    torch.manual_seed(0)
    model, x = Images(response), torch.randn(2, 3, 6, 6)
    for parameter in model.response.parameters():
        nn.init.normal_(parameter)

    def probe(network):
        return network(x.to(next(network.parameters()).device))

    assert not tb.Channels().units(model, probe).families.sizes
    units = tb.Channels(streams=True).units(model, probe)
    kept = units.choose(tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1)
    mask = units.expand(kept, dict(model.named_parameters()))
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    twin, its = copy.deepcopy((model, optimizer))
    for network, own in ((model, optimizer), (twin, its)):
        stepped(network, mask, own, x)
    small = tb.shrink(model, mask, optimizer, x)
    assert small.wide.out_features == 8
    assert small.response.weight.shape[-1] == 8
    assert sum(isinstance(own, PartialNorm) for own in small.modules()) == 2
    for network, own, left in ((twin.double(), its, mask), (small.double(), optimizer, tb.Mask({}))):
        own.load_state_dict(own.state_dict())
        stepped(network, left, own, x.double())
    others = torch.randn(3, 3, 6, 6).double()
    assert torch.allclose(twin(others), small(others), rtol=0, atol=1e-12)


def stepped(model, mask, optimizer, x) -> None:
    with tb.attach(mask, model, optimizer):
        optimizer.zero_grad()
        F.cross_entropy(model(x), torch.arange(len(x))).backward()
        optimizer.step()


class Checking(nn.Linear):
    """Its code refuses another precision than the one that it asked for."""

    def forward(self, x):
        assert x.float().dtype == torch.float32
        return super().forward(x)


def test_a_network_that_checks_its_precision_is_compared_as_it_is():
    model, x = nn.Sequential(nn.Linear(4, 6), Checking(6, 2)), torch.randn(3, 4)
    units = tb.Channels().units(model, lambda network: network(x.to(next(network.parameters()).device)))
    kept = units.choose(tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1)
    small = tb.shrink(model, units.expand(kept, dict(model.named_parameters())), example=x)
    assert small[0].out_features == 3


def test_a_difference_that_float32_would_hide_is_found():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), Single(8), nn.Linear(8, 2))
    other, x = copy.deepcopy(model).double(), torch.randn(3, 4)
    other[2].weight.data += 1e-8

    def probe(network):
        return network(x.to(next(network.parameters()).dtype))

    check_equal(model, copy.deepcopy(model), probe)
    with pytest.raises(tb.TombolaError, match="outputs differ"):
        check_equal(model, other, probe)


class Mlp(nn.Module):
    """A feed-forward part by its names, with a norm over the hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.grn, self.fc2 = nn.Linear(4, 8), Response(8), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc2(self.grn(self.fc1(x).relu()))


def test_neurons_that_a_norm_lets_meet_are_not_taken_for_plain_ones_by_names():
    x = torch.randn(2, 3, 3, 4)
    model = nn.Sequential(Mlp(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))

    def probe(network):
        return network(x.to(next(network.parameters()).device))

    assert "0.fc1" not in tb.Channels().units(model, probe).families.sizes
    assert "0.fc1" in tb.Channels(streams=True).units(model, probe).families.sizes
