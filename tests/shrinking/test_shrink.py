"""Shrinking: the smaller network is the masked one, in outputs, gradients and after a step of its optimizer."""

from __future__ import annotations

import copy
import json
import pickle
import re
import sys
import warnings
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from networks import MADE_UP, Separable, network
from tombola import Mask, TombolaError, zoo
from tombola.shrinking.cutting import axes_of, cut
from tombola.shrinking.export import to_onnx
from tombola.shrinking.plan import plan
from tombola.structure import Kept, SeparateChannels, Units, narrowed, wiring_of

# Of many networks here nothing can be cut: that is what their tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:nothing was cut out")


def channel_mask(model: nn.Module, x: torch.Tensor, density: float = 0.5) -> Mask:
    units = SeparateChannels().units(model, lambda own: own(x.to(next(own.parameters()).device)))
    kept = units.choose(tb.scores.random(model), density, scope="layerwise", within=None, floor=1)
    return units.expand(kept, dict(model.named_parameters()))


def stepped(model: nn.Module, mask: Mask, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> torch.Tensor:
    """One training step with the mask attached; the outputs before it."""
    with tb.attach(mask, model, optimizer):
        outputs = model.train()(x)
        F.cross_entropy(outputs, torch.arange(len(x)) % 5).backward()
        optimizer.step()
    return outputs


NETWORKS = ("lenet-300-100", "lenet5", "conv2", "vgg11", "resnet20", "resnet20-projection", "preresnet20", *MADE_UP)


def momentum(parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.1, 0.9, weight_decay=1e-2)


OPTIMIZED = [(name, torch.optim.Adam) for name in NETWORKS]
OPTIMIZED += [
    pytest.param(name, momentum, marks=[] if name in ("lenet5", *MADE_UP) else pytest.mark.slow) for name in NETWORKS
]


@pytest.mark.filterwarnings("ignore:removed channels of")
@pytest.mark.parametrize(("name", "make"), OPTIMIZED)
def test_the_smaller_network_is_the_masked_one_also_after_a_step(name, make):
    model, x = network(name)
    mask = channel_mask(model, x)
    optimizer = make(model.parameters())
    stepped(model, mask, optimizer, x)
    plan = tb.shrinking.preview(model, mask, x)
    before = copy.deepcopy(model.state_dict())
    own = make(model.parameters())
    own.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    small = tb.shrink(model, mask, own, x)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    optimizer.zero_grad()
    own.zero_grad()
    for mode in (True, False):
        assert torch.allclose(small.train(mode)(x), model.train(mode)(x), rtol=1e-9, atol=1e-9)
    assert torch.allclose(stepped(small, plan.mask, own, x), stepped(model, mask, optimizer, x), rtol=1e-9, atol=1e-9)
    axes = axes_of(model, plan.kept)
    for key, parameter in model.named_parameters():
        less = small.get_parameter(key)
        assert torch.allclose(less, narrowed(parameter.data, axes.get(key, {})), rtol=1e-9, atol=1e-9), key
        assert torch.allclose(less.grad, narrowed(parameter.grad, axes.get(key, {})), rtol=1e-9, atol=1e-9), key
    held = {p for group in own.param_groups for p in group["params"]}
    assert held == set(small.parameters())
    assert set(own.state) <= held


def test_a_cut_weight_keeps_its_memory_layout():
    weight, axes = torch.randn(6, 4, 3, 3), {0: torch.tensor([0, 2])}
    assert narrowed(weight, axes).is_contiguous()
    last = narrowed(weight.to(memory_format=torch.channels_last), axes)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, narrowed(weight, axes))


OTHERS = [
    pytest.param(name, marks=pytest.mark.slow if name.endswith(("32", "44", "56", "110")) else [])
    for name in zoo.MODELS
    if name not in (*NETWORKS, "minilm")
]


@pytest.mark.parametrize("name", OTHERS)
def test_every_network_of_the_zoo_shrinks(name):
    shape = (3, 8, 8) if "vgg" not in name else (3, 32, 32)
    model, x = zoo.model(name, shape, 5, width=0.25)(), torch.randn(2, *shape)
    small = tb.shrink(model, channel_mask(model, x), example=x)
    size = sum(p.numel() for p in small.parameters())
    assert 0.1 < size / sum(p.numel() for p in model.parameters()) < 0.75
    assert {type(module) for module in small.modules()} == {type(module) for module in model.modules()}


def test_what_comes_back_is_a_plain_network_that_can_be_copied_and_stored():
    model, x = network("resnet20")
    small = tb.shrink(model, channel_mask(model, x), example=x).eval()
    for twin in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert torch.equal(twin(x), small(x))
    again = tb.shrink(small, Mask({}), example=x).eval()
    assert torch.equal(again(x), small(x))


def test_layers_know_their_new_sizes():
    model, x = network("Separable")
    mask = channel_mask(model, x)
    small = tb.shrink(model, mask, example=x)
    assert isinstance(small, Separable)
    depth = small.depth
    assert depth.in_channels == depth.out_channels == depth.groups == small.depth_norm.num_features == len(depth.weight)
    assert small.last.in_features == small.out.out_channels == 2
    assert small.last.out_features == 5


def test_a_stream_goes_only_where_every_member_drops_it():
    model, x = network("resnet20-projection")
    names = ["conv1", *(f"layer1.{block}.conv2" for block in range(3))]
    units = SeparateChannels().units(model, lambda own: own(x.to(next(own.parameters()).device)))
    alive = torch.ones(16, dtype=torch.bool)
    alive[[3, 7]] = False
    some = Mask.of({name: alive for name in names[:-1]})
    mask = units.expand(some, dict(model.named_parameters()))
    assert tb.shrinking.preview(model, mask, x).kept == {}
    assert not mask["bn1.bias"][[3, 7]].any()
    assert mask["layer2.0.conv1.weight"].all()
    everyone = Mask.of({name: alive for name in names})
    mask = units.expand(everyone, dict(model.named_parameters()))
    assert not mask["layer2.0.conv1.weight"][:, [3, 7]].any()
    small = tb.shrink(model, mask, example=x)
    assert small.layer1[2].conv2.out_channels == small.layer2[0].conv1.in_channels == 14
    assert tb.shrinking.preview(model, mask, x).mask == Mask({})


@pytest.mark.parametrize(("dead", "left"), [((0,), 8), ((0, 1), 6), ((1, 2), 8), ((0, 1, 6, 7), 4)])
def test_what_shares_statistics_or_a_group_of_a_convolution_goes_only_whole(dead, left):
    model, x = network("Grouped")
    units = SeparateChannels().units(model, lambda own: own(x.to("meta")))
    alive = torch.ones(8, dtype=torch.bool)
    alive[list(dead)] = False
    mask = units.expand(
        Mask.of({"into": alive, "grouped": alive[::2].repeat_interleave(3)}), dict(model.named_parameters())
    )
    small = tb.shrink(model, mask, example=x)
    assert (small.into.out_channels, small.norm.num_channels, small.grouped.in_channels) == (left,) * 3
    assert small.norm.num_groups == small.grouped.groups == left // 2
    assert small.grouped.out_channels == small.up.in_channels


def test_weights_that_are_all_dead_free_what_only_they_read():
    model, x = network("lenet-300-100")
    mask = Mask.full({name: p for name, p in model.named_parameters() if name.endswith("weight")})
    names = list(mask)
    second = mask[names[1]]
    second[:, :40] = False
    small = tb.shrink(model, Mask.of({**{n: mask[n] for n in names}, names[1]: second}), example=x)
    assert small.get_parameter(names[0]).shape[0] == 260
    assert small.get_parameter(names[1]).shape == (100, 260)


@pytest.mark.parametrize("forbidden", [None, "foreign", "factored"])
def test_an_optimizer_that_cannot_follow_is_refused_and_left_alone(forbidden):
    model, x = network("lenet5")
    mask = channel_mask(model, x)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    stepped(model, mask, optimizer, x)
    if forbidden == "foreign":
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))]})
    if forbidden == "factored":
        optimizer.state[next(model.parameters())]["row"] = torch.zeros(3)
    before = copy.deepcopy(optimizer.state_dict())
    if forbidden is None:
        tb.shrink(model, mask, optimizer, x)
        return
    with pytest.raises(TombolaError, match="not this model's" if forbidden == "foreign" else "'row' of"):
        tb.shrink(model, mask, optimizer, x)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]


def test_inputs_to_trace_with_are_asked_for():
    model, x = network("lenet5")
    with pytest.raises(TombolaError, match="give example="):
        tb.shrink(model, channel_mask(model, x))


class Mixing(nn.Module):
    """Multiplies channels by others of the same name in ways that no trace of operations can see."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.last = nn.Linear(6, 5)

    def forward(self, x):
        hidden = self.first(x)
        return self.last(torch.relu(hidden) + float(self.first.out_features))


def test_a_smaller_network_that_differs_is_not_handed_over(monkeypatch):
    model, x = Mixing().double(), torch.randn(3, 4, dtype=torch.float64)
    mask = channel_mask(copy.deepcopy(model), x)
    monkeypatch.setattr("tombola.structure.rules_of_elements._zeros", lambda call, dead: True)
    with pytest.raises(TombolaError, match="outputs differ from the masked network's"):
        tb.shrink(model, mask, example=x)


class Numbered(nn.Module):
    """Its code knows how many channels there are."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.last = nn.Linear(4 * 4, 5)

    def forward(self, x):
        return self.last(self.first(x).view(-1, 4 * 2 * 2))


def test_channels_that_the_networks_code_counts_stay_and_that_is_said():
    model, x = Numbered(), torch.randn(3, 3, 2, 2)
    with pytest.warns(tb.shrinking.ShrinkWarning, match="'first'.*code that has their number written in it"):
        small = tb.shrink(model, channel_mask(model, x), example=x)
    assert small.first.out_channels == 4


class Checked(Numbered):
    """Its code checks in training how many channels there are."""

    def forward(self, x):
        hidden = self.first(x)
        if self.training and hidden.shape[1] != 4:
            raise ValueError("four channels are needed")
        return self.last(hidden.flatten(1))


def test_a_network_whose_code_needs_its_channels_is_not_handed_over():
    model, x = Checked(), torch.randn(3, 3, 2, 2)
    with pytest.raises(TombolaError, match="has the number of channels written in it"):
        tb.shrink(model, channel_mask(model, x), example=x)


class Shuffle(nn.Module):
    """A block of a ShuffleNet, which takes all channels or, without a stride, half of them."""

    def __init__(self, inputs: int, half: int, stride: int) -> None:
        super().__init__()
        taken = inputs if stride > 1 else half
        self.past = nn.Sequential(nn.Conv2d(inputs, half, 1, stride), nn.BatchNorm2d(half), nn.ReLU())
        self.branch = nn.Sequential(
            *(nn.Conv2d(taken, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU()),
            *(nn.Conv2d(half, half, 3, stride, 1, groups=half), nn.BatchNorm2d(half)),
            *(nn.Conv2d(half, half, 1), nn.BatchNorm2d(half), nn.ReLU()),
        )
        self.halved = stride == 1
        if self.halved:
            self.past = nn.Identity()

    def forward(self, x):
        one, two = x.chunk(2, 1) if self.halved else (x, x)
        x = torch.cat([self.past(one), self.branch(two)], 1)
        return x.view(len(x), 2, -1, *x.shape[2:]).transpose(1, 2).contiguous().view(x.shape)


class Shuffled(nn.Module):
    """A ShuffleNet, whose channels can go only with those at other places of the halves."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.stages = nn.Sequential(
            *(Shuffle(*own) for own in ((8, 6, 2), (12, 6, 1), (12, 6, 1), (12, 12, 2), (24, 12, 1)))
        )
        self.wide, self.last = nn.Conv2d(24, 16, 1), nn.Linear(16, 5)

    def forward(self, x):
        return self.last(self.wide(self.stages(F.relu(self.norm(self.stem(x))))).mean((2, 3)))


class Windows(nn.Module):
    """Parts of the channels through convolutions of their own and joined with a stream, as in CoaT."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mid = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 7, 3, padding=1)
        self.each = nn.ModuleList(nn.Conv2d(size, size, 3, padding=1, groups=size) for size in (2, 3, 3))
        self.last = nn.Linear(7, 5)

    def forward(self, x):
        x = self.stem(x)
        parts = [own(part) for own, part in zip(self.each, x.split([2, 3, 3], 1), strict=True)]
        return self.last(F.relu(self.mid(torch.cat(parts, 1) + x)).mean((2, 3)))


class TwoUses(nn.Module):
    """A product of the parts of a split, of which one is used twice, and as rows a reshape that is not followed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.mid, self.last = nn.Conv2d(4, 9, 1), nn.Linear(9, 5)

    def forward(self, x):
        one, two = F.relu(self.stem(x)).split(4, 1)
        x = self.one(one) * torch.sigmoid(self.two(two)) * two
        return self.last(F.relu(self.mid(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("make", "pinned", "free", "told"),
    [
        (Shuffled, {"stages.0.past.0", "stages.0.branch.5"}, {"stem", "stages.1.branch.0", "wide"}, False),
        (Windows, {"stem"}, {"mid"}, False),
        (TwoUses, {"stem"}, {"mid"}, True),
    ],
)
def test_what_cannot_be_cut_stays_and_all_else_is_cut(make, pinned, free, told):
    torch.manual_seed(0)
    model, x = make().double(), torch.randn(3, 3, 16, 16, dtype=torch.float64)
    mask = channel_mask(model, x)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        small = tb.shrink(model, mask, example=x)
    left = [str(own.message) for own in seen]
    smaller = {
        name.removesuffix(".weight")
        for name, own in small.named_parameters()
        if len(own) < len(model.get_parameter(name))
    }
    assert any(not mask[f"{name}.weight"].flatten(1).any(1).all() for name in pinned)
    assert not pinned & smaller
    assert free <= smaller
    says = r"removed channels of '[\w.]+'.* are masked in the smaller network, and not cut out of it, which are \d+% of"
    assert [bool(re.match(says, own)) for own in left] == [True] * told
    sgd = [torch.optim.SGD(own.parameters(), 0.1) for own in (model, small)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dead = tb.shrinking.preview(model, mask, x).mask
    other = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    for _ in range(2):  # before a step and after it
        outputs = stepped(model, mask, sgd[0], other), stepped(small, dead, sgd[1], other)
        assert torch.allclose(*outputs, rtol=1e-9, atol=1e-9)


def test_a_split_gives_each_layer_the_part_that_it_takes():
    model, x = TwoUses(), torch.randn(2, 3, 8, 8)
    wiring = wiring_of(model, lambda own: own(x.to(next(own.parameters()).device)))
    fed = wiring.fed_from("stem")
    assert fed["one inputs"].tolist() == [0, 1, 2, 3]
    assert fed["two inputs"].tolist() == [4, 5, 6, 7]


def test_a_mask_of_single_weights_is_told_that_nothing_was_cut():
    model, x = network("lenet5")
    with pytest.warns(tb.shrinking.ShrinkWarning, match="nothing was cut out, so the network is as large as before"):
        small = tb.shrink(model, tb.select(tb.scores.random(model), 0.9), example=x)
    assert sum(p.numel() for p in small.parameters()) == sum(p.numel() for p in model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tb.shrink(model, Mask.full(dict(model.named_parameters())), example=x)
        tb.shrink(model, channel_mask(model, x), example=x)


def test_training_goes_on_masked_where_the_smaller_network_would_differ(monkeypatch):
    x, y = torch.randn(40, 4), torch.arange(40) % 5
    task = tb.SupervisedTask(Mixing, {"train": (x, y), "test": (x, y)}, recipe=tb.Recipe(epochs=1, batch=10))
    ticket = tb.find(task, tb.OneShot(density=0.5, granularity=SeparateChannels()), progress=False)
    with pytest.warns(tb.shrinking.ShrinkWarning, match="through a constant that is added to them"):
        assert tb.train(task, ticket).plan.kept == {}
    monkeypatch.setattr("tombola.structure.rules_of_elements._zeros", lambda call, dead: True)
    with pytest.warns(tb.shrinking.ShrinkWarning, match="the masked network is trained"):
        assert tb.train(task, ticket).plan is None


class Odd(nn.Module):
    """A small network with one thing in it that a trace may misread; see `ODD`."""

    def __init__(self, forward, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


class Turned(nn.Module):
    """A linear layer whose weight is (inputs, outputs), as GPT-2's `Conv1D`."""

    def __init__(self, nx: int, nf: int) -> None:
        super().__init__()
        self.nx, self.nf = nx, nf
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return torch.addmm(self.bias, x.flatten(0, -2), self.weight).view(*x.shape[:-1], self.nf)


def pooled(x: torch.Tensor) -> torch.Tensor:
    return x.mean(tuple(range(2, x.ndim)))


CONV = {"a": lambda: nn.Conv2d(3, 8, 3, padding=1), "b": lambda: nn.Linear(8, 5)}
IMAGES, SEQUENCES, ROWS, TOKENS = (3, 8, 8), (3, 10), (4,), (16, 4)
ODD = {
    "times a number": (IMAGES, lambda s, x: s.b(pooled(s.a(x) * 0.5)), CONV),
    "divided": (IMAGES, lambda s, x: s.b(pooled(F.relu(s.a(x)) / 3)), CONV),
    "hard swish by hand": (IMAGES, lambda s, x: s.b(pooled((y := s.a(x)) * F.relu6(y + 3) / 6)), CONV),
    "padded sequences": (
        SEQUENCES,
        lambda s, x: pooled(s.b(F.pad(s.a(x), (0, 0, 2, 2)))),
        {"a": lambda: nn.Conv1d(3, 8, 1), "b": lambda: nn.Conv1d(12, 9, 1)},
    ),
    "padded rows": (
        ROWS,
        lambda s, x: s.b(F.pad(s.a(x), (2, 2))),
        {"a": lambda: nn.Linear(4, 8), "b": lambda: nn.Linear(12, 5)},
    ),
    "narrowed from the end": (IMAGES, lambda s, x: s.b(pooled(s.a(x).narrow(-1, 1, 4))), CONV),
    "a norm over tokens": (
        TOKENS,
        lambda s, x: s.b(s.c(pooled(F.relu(s.norm(s.a(x)))))),
        {"a": lambda: nn.Linear(4, 8), "norm": lambda: nn.BatchNorm1d(16)}
        | {"c": lambda: nn.Linear(16, 7), "b": lambda: nn.Linear(7, 5)},
    ),
    "a convolution over tokens": (
        TOKENS,
        lambda s, x: s.c(pooled(s.b(s.a(x)))),
        {"a": lambda: nn.Linear(4, 8), "b": lambda: nn.Conv1d(16, 9, 1), "c": lambda: nn.Linear(9, 5)},
    ),
    "GPT-2's linear layers": (
        TOKENS,
        lambda s, x: s.b(s.c(F.gelu(s.a(x))).mean(1)),
        {"a": lambda: Turned(4, 8), "c": lambda: Turned(8, 6), "b": lambda: nn.Linear(6, 5)},
    ),
    "detached": (
        IMAGES,
        lambda s, x: (s.b(pooled(F.relu(s.norm(y := s.a(x))))), s.head(pooled(y.detach()))),
        CONV | {"norm": lambda: nn.BatchNorm2d(8), "head": lambda: nn.Linear(8, 5)},
    ),
    "truths and nothing beside": (IMAGES, lambda s, x: (y := s.b(pooled(s.a(x))), y > 0, y[:0], y.log()), CONV),
    "another layer's weight computed": (
        IMAGES,
        lambda s, x: s.b(s.c(pooled(s.a(x)))),
        CONV | {"c": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))},
    ),
}


@pytest.mark.filterwarnings("ignore:.*cannot lose any")  # weight norm's
@pytest.mark.filterwarnings("ignore:removed channels of")
@pytest.mark.parametrize("name", ODD)
def test_what_a_mask_takes_with_removed_channels_did_not_matter_any_more(name):
    torch.manual_seed(0)
    shape, forward, layers = ODD[name]
    model = Odd(forward, **{key: make() for key, make in layers.items()}).double().eval()
    x = torch.randn(6, *shape, dtype=torch.float64)
    units = SeparateChannels().units(model, lambda own: own(x.to(next(own.parameters()).device)))
    for seed in range(4):
        kept = units.choose(tb.scores.random(model, seed=seed), 0.6, scope="layerwise", within=None, floor=1)
        mask = units.expand(kept, dict(model.named_parameters()))
        chosen = Units(tuple(group for group in units.wiring.groups if group.name in kept))
        alone = chosen.expand(kept, dict(model.named_parameters()))
        outputs = []
        for what in (alone, mask):
            twin = copy.deepcopy(model)
            tb.attach(what, twin).detach()
            outputs.append(twin(x)[0] if isinstance(twin(x), tuple) else twin(x))
        assert alone.total_kept > 0
        assert torch.allclose(*outputs, rtol=1e-9, atol=1e-9)
        small = tb.shrink(model, mask, example=x)
        after = small.eval()(x)
        assert torch.allclose(after[0] if isinstance(after, tuple) else after, outputs[1], rtol=1e-9, atol=1e-9)


def test_a_layer_that_is_called_in_training_only_keeps_what_it_reads():
    def forward(s, x):
        y = s.a(x)
        return (s.b(pooled(y)), s.head(pooled(y))) if s.training else s.b(pooled(y))

    model = Odd(forward, head=nn.Linear(8, 5), **{key: make() for key, make in CONV.items()})
    x = torch.randn(2, *IMAGES)
    small = tb.shrink(model, channel_mask(model, x), example=x)
    assert len(small.train()(x)) == 2


def test_wrappers_that_hold_on_to_parameters_and_networks_that_cannot_be_copied_are_refused(monkeypatch):
    model, x = network("lenet5")
    mask = channel_mask(model, x)
    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", type(model))
    with pytest.raises(TombolaError, match="is wrapped in DDP"):
        tb.shrink(model, mask, example=x)
    monkeypatch.undo()
    model.cache = next(model.parameters()) * 2
    assert not tb.shrink(model, mask, example=x).cache.requires_grad
    model.cache = [model.cache]
    with pytest.raises(TombolaError, match="cannot be copied"):
        tb.shrink(model, mask, example=x)
    with pytest.raises(TombolaError, match="cannot be copied"):
        tb.shrinking.preview(model, mask, x)


def test_l_bfgs_cannot_follow():
    model, x = network("lenet5")
    with pytest.raises(TombolaError, match="L-BFGS remembers"):
        tb.shrink(model, channel_mask(model, x), torch.optim.LBFGS(model.parameters()), x)


def test_a_network_that_gives_nothing_to_trace_is_refused():
    with pytest.raises(TombolaError, match="gives no tensor from which"):
        tb.shrinking.preview(Odd(lambda s, x: s.a(x).shape, a=nn.Linear(4, 3)), Mask({}), torch.randn(2, 4))


# Files and exports


@cache
def small_resnet() -> tuple[nn.Module, nn.Module, tb.shrinking.Plan, torch.Tensor]:
    model, x = network("resnet20")
    model, x = model.float(), x.float()
    mask = channel_mask(model, x)
    return model, tb.shrink(model, mask, example=x), tb.shrinking.preview(model, mask, x), x


def test_a_stored_network_is_built_again_from_a_whole_one(tmp_path):
    model, small, plan, x = small_resnet()
    tb.shrinking.save_small(tmp_path, small, plan, {"who": "a test"})
    fresh = zoo.model("resnet20", (3, 16, 16), 5)()
    again = tb.load_small(tmp_path, fresh)
    assert torch.equal(again.eval()(x), small.eval()(x))
    assert sum(p.numel() for p in fresh.parameters()) == sum(p.numel() for p in model.parameters())
    assert json.loads((tmp_path / "network.json").read_text())["facts"] == {"who": "a test"}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "network.json").unlink(), "cannot read .*network.json"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "cannot read .*weights.safetensors"),
        (lambda folder: (folder / "network.json").write_text("{"), "cannot read .*network.json"),
        (lambda folder: (folder / "network.json").write_text('{"format": 9}'), "its format is 9"),
        (
            lambda folder: (folder / "network.json").write_text(
                (folder / "network.json").read_text().replace('"outputs": [', '"outputs": [-1, ', 1)
            ),
            "does not list channels by number",
        ),
        (
            lambda folder: (folder / "weights.safetensors").write_bytes(
                (folder / "weights.safetensors").read_bytes()[:-4] + b"\x00\x00\x80\x3f"
            ),
            "are not those that network.json describes",
        ),
    ],
)
def test_spoilt_files_are_refused(tmp_path, spoil, says):
    _, small, plan, _ = small_resnet()
    tb.shrinking.save_small(tmp_path, small, plan)
    spoil(tmp_path)
    with pytest.raises(TombolaError, match=says):
        tb.load_small(tmp_path, zoo.model("resnet20", (3, 16, 16), 5)())


@pytest.mark.parametrize("other", ["resnet32", "vgg11", "lenet5"])
def test_another_network_is_refused(tmp_path, other):
    _, small, plan, _ = small_resnet()
    tb.shrinking.save_small(tmp_path, small, plan)
    with pytest.raises(TombolaError, match=r"another network|another architecture"):
        tb.load_small(tmp_path, zoo.model(other, (3, 32, 32), 5)())


@pytest.mark.slow
def test_onnx_runtime_gives_pytorchs_outputs_at_any_batch_size(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    _, small, _, x = small_resnet()
    assert tb.shrinking.to_onnx(small, x, tmp_path / "small.onnx") < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    more = torch.randn(7, 3, 16, 16)
    outputs = session.run(None, {session.get_inputs()[0].name: more.numpy()})[0]
    assert torch.allclose(torch.from_numpy(outputs), small.eval()(more), atol=1e-4)


class Answers(nn.Module):
    """Two inputs, of which one may be missing, and outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x, scale=None):
        y = self.layer(x)
        return {"logits": y if scale is None else y * scale, "mean": y.mean(1)}


@pytest.mark.parametrize(
    ("example", "inputs"),
    [
        ({"x": torch.randn(4, 3), "scale": torch.ones(4, 2)}, ["x", "scale"]),
        ((torch.randn(4, 3), torch.ones(4, 2)), ["input_0", "input_1"]),
        pytest.param({"x": torch.randn(4, 3), "scale": None}, ["x"], marks=pytest.mark.slow),
    ],
    ids=["keys", "places", "none"],
)
def test_several_inputs_and_named_outputs_are_exported(tmp_path, example, inputs):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = Answers()
    assert tb.shrinking.to_onnx(model, example, tmp_path / "x.onnx") < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    assert [entry.name for entry in session.get_inputs()] == inputs
    assert [entry.name for entry in session.get_outputs()] == ["logits", "mean"]
    x = torch.randn(7, 3)
    feed = dict(zip(inputs, (x.numpy(), torch.ones(7, 2).numpy()), strict=False))
    assert torch.allclose(torch.from_numpy(session.run(None, feed)[0]), model.layer(x), atol=1e-5)
    assert model.training


def test_exporting_leaves_the_network_as_it_was(tmp_path):
    pytest.importorskip("onnxscript")
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))
    model[1].eval()
    model(torch.randn(2, 1, 6, 6)).sum().backward()
    modes = [part.training for part in model.modules()]
    before = [(p.dtype, p.data_ptr(), p.grad.clone()) for p in model.parameters()]
    to_onnx(model, torch.randn(2, 1, 6, 6), tmp_path / "yes.onnx")
    with pytest.raises(TombolaError, match="cannot be exported"):
        to_onnx(model, torch.randn(2, 3, 6, 6), tmp_path / "no.onnx")
    assert [part.training for part in model.modules()] == modes
    for parameter, (dtype, place, grad) in zip(model.parameters(), before, strict=True):
        assert (parameter.dtype, parameter.data_ptr()) == (dtype, place)
        assert torch.equal(parameter.grad, grad)


def test_what_onnx_runtime_cannot_compute_is_a_sentence(tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(TombolaError, match=r"cannot be exported to ONNX: .*Conv"):
        to_onnx(nn.Conv2d(1, 2, 3).double(), torch.randn(2, 1, 6, 6).double(), tmp_path / "no.onnx")


def test_a_plan_is_made_where_the_mask_is_and_not_where_the_network_is():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    mask = Mask.full({"0.weight": model[0].weight, "0.bias": model[0].bias, "3.weight": model[3].weight})
    kept = {name: mask[name] for name in mask}
    kept["0.weight"][1], kept["0.bias"][1] = False, False
    kept["3.weight"][:, 0] = False
    own = plan(model, Mask.of(kept), lambda net: net(torch.zeros(1, 1, 6, 6, device=net[0].weight.device)))
    elsewhere = copy.deepcopy(model).to("meta")
    there = plan(elsewhere, Mask.of(kept), lambda net: net(torch.zeros(1, 1, 6, 6, device=net[0].weight.device)))
    assert (
        there.kept
        == own.kept
        == {"0": Kept((0,), (0, 2, 3)), "3": Kept(tuple(n for n in range(64) if n // 16 != 1), (0, 1))}
    )
    assert there.mask == own.mask
    assert cut(elsewhere, there.kept)[0].weight.shape == (3, 1, 3, 3)


def test_a_missing_extra_and_a_network_that_cannot_be_exported_are_told(tmp_path, monkeypatch):
    model = Mixing()
    model.forward = lambda x: x if x.sum() > 0 else -x
    with pytest.raises(TombolaError, match="cannot be exported to ONNX"):
        tb.shrinking.to_onnx(model, torch.randn(2, 4), tmp_path / "x.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(TombolaError, match=r"pip install 'tombola\[export\]'"):
        tb.shrinking.to_onnx(Mixing(), torch.randn(2, 4), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


# Blocks with a dead branch


def dead_branch(model: nn.Module, *blocks: str) -> Mask:
    """Every channel that the last layer of a block's branch gives is removed."""
    dead: dict[str, torch.Tensor] = {}
    for block in blocks:
        own = model.get_submodule(block)
        last = "3" if hasattr(own, "conv3") else "2"
        parts = {f"{block}.conv{last}.weight": own.get_submodule(f"conv{last}").weight}
        norm = own.get_submodule(f"bn{last}")
        if type(own).__name__ != "PreActivationBlock":
            parts |= {f"{block}.bn{last}.weight": norm.weight, f"{block}.bn{last}.bias": norm.bias}
        dead |= {name: torch.zeros_like(p, dtype=torch.bool) for name, p in parts.items()}
    return Mask.of(dead)


@pytest.mark.parametrize("name", ["resnet20", "preresnet20", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_a_block_whose_branch_is_dead_is_left_out(name, tmp_path):
    model, x = network(name) if name != "resnet50" else (zoo.model(name, (3, 8, 8), 5, 0.25)().double(), None)
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64) if x is None else x
    mask = dead_branch(model, "layer1.1", "layer2.1")
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    stepped(model, mask, optimizer, x)
    plan, own = tb.shrinking.preview(model, mask, x), torch.optim.SGD(model.parameters(), 0.1, 0.9)
    assert plan.idle == ("layer1.1", "layer2.1")
    assert plan.mask == Mask({})
    own.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    small = tb.shrink(model, mask, own, x)
    assert isinstance(small.layer1[1], nn.Identity)
    assert {p for group in own.param_groups for p in group["params"]} == set(small.parameters()) >= set(own.state)
    for _ in range(2):
        optimizer.zero_grad()
        own.zero_grad()
        before = [stepped(net, m, o, x) for net, m, o in ((small, Mask({}), own), (model, mask, optimizer))]
        assert torch.allclose(*before, rtol=1e-9, atol=1e-9)
    tb.shrinking.save_small(tmp_path, small, plan)
    again = tb.load_small(tmp_path, copy.deepcopy(model))
    assert torch.equal(again.eval()(x), small.eval()(x))


class Added(nn.Module):
    """Something added to the input, which is scaled if one says so."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale = nn.Conv2d(3, 3, 1), 1.0

    def forward(self, x):
        return self.scale * x + self.conv(x)


def added() -> tuple[nn.Sequential, Mask, torch.Tensor]:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 3, 1), Added(), nn.Flatten(), nn.Linear(48, 5)), torch.randn(4, 3, 4, 4)
    conv = dict(model[1].conv.named_parameters())
    return model, Mask.of({f"1.conv.{part}": torch.zeros_like(own).bool() for part, own in conv.items()}), x


def test_blocks_with_a_dead_branch_are_left_out_where_they_give_their_input():
    model, mask, x = added()
    assert tb.shrinking.preview(model, mask, x).idle == ("1",)
    model[1].scale = 2.0
    assert tb.shrinking.preview(model, mask, x).idle == ()
    model[1].scale, model[1].branch = 1.0, ("conv",)
    assert tb.shrinking.preview(model, mask, x).idle == ("1",)
    changing, x = network("resnet20-projection")
    assert tb.shrinking.preview(changing, dead_branch(changing, "layer2.0"), x).idle == ()


def test_a_live_branch_of_zeros_stays():
    model, _, x = added()
    model[1].branch = ("conv",)
    with torch.no_grad():
        model[1].conv.weight.zero_()
        model[1].conv.bias.zero_()
    assert tb.shrinking.preview(model, Mask({}), x).idle == ()


def test_a_block_that_says_what_is_not_so_stays_and_is_named():
    model, mask, x = added()
    model[1].branch, model[1].scale = ("conv",), 2.0
    with pytest.warns(tb.shrinking.ShrinkWarning, match="masked in the smaller network, and not cut out"):
        assert tb.shrinking.preview(model, mask, x).idle == ()


def test_a_block_that_stands_twice_stays():
    model, mask, x = added()
    model[1].branch = ("conv",)
    twice = nn.Sequential(model[0], model[1], model[1], *model[2:])
    assert tb.shrinking.preview(twice, mask, x).idle == ()
