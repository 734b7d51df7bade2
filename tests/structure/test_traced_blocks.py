"""Residual blocks that do not say what they add: found by calling the network, or named in a list."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import tombola as tb
from kinds import BLOCK_SCORES
from tombola import TombolaError, zoo
from tombola.structure import Block, Blocks, kept_share, residual_blocks
from tombola.studies import RunSpec
from tombola.testing import check_method, toy_task
from tombola.zoo.resnet import BLOCKS
from tombola.zoo.vit import Layer

IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Basic(nn.Module):
    """As torchvision's basic block."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        nn.Sequential(*(Basic(4, 4) for _ in range(3))),
        nn.Sequential(Basic(4, 8, 2), Basic(8, 8), Basic(8, 8), Basic(8, 8)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    )


class Inverted(nn.Module):
    """As MobileNetV2's block, which adds its input where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Sequential(nn.Conv2d(inputs, 2 * inputs, 1), nn.BatchNorm2d(2 * inputs), nn.ReLU6(inplace=True)),
            nn.Conv2d(2 * inputs, 2 * inputs, 3, stride, 1, groups=2 * inputs),
            nn.Conv2d(2 * inputs, outputs, 1),
            nn.BatchNorm2d(outputs),
        )
        self.adds = (stride, inputs) == (1, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


def mobile() -> nn.Module:
    sizes = [(2, 4, 1), (4, 6, 2), (6, 6, 1), (6, 6, 1), (6, 8, 2), (8, 8, 1), (8, 8, 1)]
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        *(Inverted(*own) for own in sizes),
        nn.Conv2d(8, 8, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


class Encoder(nn.Module):
    """Rows of an image as tokens, and PyTorch's own transformer layers."""

    def __init__(self, *, norm_first: bool) -> None:
        super().__init__()
        self.tokens = nn.Linear(8, 12)
        layers = (
            nn.TransformerEncoderLayer(12, 2, 16, batch_first=True, norm_first=norm_first, dropout=0.1)
            for _ in range(4)
        )
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.tokens(x.flatten(1, 2))).mean(1))


class Dense(nn.Module):
    """As DenseNet's layer: what it makes stands beside its input."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(self.norm(x).relu())], 1)


def densenet() -> nn.Module:
    blocks = [nn.Conv2d(1, 3, 3, padding=1), Dense(3), Dense(6), Dense(9)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))


def plain() -> nn.Module:
    layers = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(3)]
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), *layers, nn.Flatten(), nn.Linear(256, 5))


def found(model: nn.Module, images: Tensor = IMAGES) -> tuple[Block, ...]:
    return residual_blocks(model, lambda own: own(images))


def branches(model: nn.Module, images: Tensor = IMAGES) -> dict[str, list[str]]:
    return {block.name: list(dict.fromkeys(layer for layer, _ in block.gives)) for block in found(model, images)}


def stages(model: nn.Module) -> dict[str, str]:
    return {block.name: block.stage for block in found(model)}


def test_blocks_of_a_resnet_end_in_their_last_norms():
    model = resnet()
    assert branches(model) == {
        **{f"1.{place}": [f"1.{place}.bn2"] for place in range(3)},
        "2.0": [],
        **{f"2.{place}": [f"2.{place}.bn2"] for place in range(1, 4)},
    }
    assert found(model)[0].gives == (("1.0.bn2", "weight"), ("1.0.bn2", "bias"))
    assert set(stages(model).values()) == {"1", "2"}
    assert len(Blocks().units(model, lambda own: own(IMAGES)).blocks) == 5


def test_layers_of_a_transformer_end_in_two_layers():
    for name, layers in branches(Encoder(norm_first=True)).items():
        assert layers == [f"{name}.linear2", f"{name}.self_attn.out_proj"]


def test_blocks_in_one_sequence_stand_in_runs():
    model = mobile()
    assert {name for name, layers in branches(model).items() if layers} == {"3", "4", "6", "7"}
    assert branches(model)["6"] == ["6.conv.3"]
    assert stages(model) == {"1": "1", "2": "2", "3": "2", "4": "2", "5": "5", "6": "5", "7": "5"}
    units = Blocks(2).units(model, lambda own: own(IMAGES))
    kept = units.choose(tb.scores.magnitude(model), kept_share(units, 1.0), scope="global", within=None, floor=0)
    assert {stage: len(own) for stage, own in units.removed(kept).items()} == {"2": 1, "5": 1}


@pytest.mark.parametrize("build", [densenet, plain, partial(Encoder, norm_first=False)])
def test_networks_without_shortcuts_past_their_layers_have_none(build):
    assert found(build()) == ()
    assert found(build(), torch.zeros(2, 1, 8, 8)) == ()


def test_what_is_zero_at_first_or_dead_hides_no_block():
    model = resnet()
    before = found(model)
    with torch.no_grad():
        for name, own in model.named_parameters():
            if ".bn2." in name:
                own.zero_()
    assert found(model) == before


class Twice(Basic):
    """A block that calls its first convolution a second time."""

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn2(self.conv2(self.conv1(self.conv1(x)))) + x)


class Scaled(Basic):
    """A block that weighs its input, by one at first."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn2(self.conv2(self.conv1(x))) + self.scale * x)


class Clipping(Basic):
    """A block that changes what it is given in place."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp_(min=0) + self.bn2(self.conv2(self.conv1(x)))


class Plain(Basic):
    """A block that is called with a number too."""

    def forward(self, x: Tensor, rate: float = 1.0) -> Tensor:
        return super().forward(x)


class Fed(nn.Module):
    """Calls its block with a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.block = nn.Conv2d(1, 4, 3), Plain(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.conv(x), rate=0.5)


def in_a_row(*blocks: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *blocks)


@pytest.mark.parametrize(
    "build",
    [
        lambda: in_a_row(Twice(4, 4)),
        lambda: in_a_row(*[Basic(4, 4)] * 2),
        lambda: in_a_row(Scaled(4)),
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), Clipping(4, 4)),
        Fed,
    ],
    ids=["layer called twice", "stands twice", "weighs its input", "clips its input", "called with a keyword"],
)
def test_what_cannot_be_left_out_is_no_block(build):
    assert found(build()) == ()


def test_blocks_that_share_a_layer_stay():
    one, other = Basic(4, 4), Basic(4, 4)
    other.conv1.weight = one.conv1.weight
    assert {name for name, layers in branches(in_a_row(one, Basic(4, 4), other)).items() if layers} == {"3"}


@pytest.mark.parametrize(
    "name", [pytest.param("resnet32", marks=pytest.mark.slow), "preresnet20", "resnet50", "wrn-28-2", "vit-tiny"]
)
def test_the_zoo_without_its_declarations_has_the_same_blocks(name, monkeypatch):
    model, images = zoo.model(name, (3, 8, 8), 5, width=0.25)(), torch.randn(2, 3, 8, 8)
    declared = residual_blocks(model)
    for kind in (*BLOCKS.values(), Layer):
        monkeypatch.delattr(kind, "branch")
    assert residual_blocks(model) == ()
    assert residual_blocks(model, lambda own: own(images)) == declared


def test_who_declares_itself_is_not_searched():
    model = resnet()
    model[1][2].branch = ("bn2",)
    assert [block.name for block in found(model)] == ["1.2"]


def test_a_search_leaves_the_network_as_it_was():
    model = resnet().train()
    model[1][0].bn1.eval()
    before, modes = copy.deepcopy(model.state_dict()), [own.training for own in model.modules()]
    random = torch.get_rng_state()
    found(model)
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())
    assert modes == [own.training for own in model.modules()]
    assert not any(own._forward_hooks or own._forward_pre_hooks for own in model.modules())
    assert all(own.grad is None and own.requires_grad for own in model.parameters())
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize(
    ("build", "free"),
    [
        (resnet, 5),
        pytest.param(mobile, 4, marks=pytest.mark.slow),
        pytest.param(partial(Encoder, norm_first=True), 3, marks=pytest.mark.slow),
    ],
)
def test_a_ticket_of_a_network_of_yours_is_the_one_whose_blocks_add_nothing(build, free):
    task = toy_task(build)
    ticket = tb.find(task, tb.OneShot(granularity=Blocks(2, least=1)), progress=False)
    trained = tb.train(task, ticket)
    assert trained.plan is not None
    assert len(trained.plan.idle) == 2
    assert trained.plan.mask == tb.Mask({})
    model = task.build(0).double().eval()
    small = tb.shrink(model, ticket, example=IMAGES)
    gives = {block.name: block.gives for block in found(model, IMAGES.double())}
    with torch.no_grad():
        for name in trained.plan.idle:
            for layer, part in gives[name]:
                model.get_parameter(f"{layer}.{part}").zero_()
        assert torch.allclose(small(IMAGES.double()), model(IMAGES.double()), rtol=1e-12, atol=1e-12)
    assert RunSpec(task, tb.OneShot(granularity=Blocks(1))).density == pytest.approx(1 - 1 / free)


@pytest.mark.parametrize(
    "score",
    [
        pytest.param(tb.scores.Snip(), marks=pytest.mark.slow),
        pytest.param(tb.scores.RandomBlocks(), marks=pytest.mark.slow),
        pytest.param(tb.scores.OutputDivergence(), marks=pytest.mark.slow),
    ],
    ids=lambda own: own.name,
)
def test_tickets_of_blocks_that_are_found_keep_the_laws(score):
    check_method(tb.OneShot(score=score, granularity=Blocks(2)), resnet)


@pytest.mark.parametrize("score", BLOCK_SCORES.values(), ids=BLOCK_SCORES)
def test_blocks_that_are_found_are_scored(score):
    model, batches = resnet(), [(IMAGES, torch.arange(4))]
    scores = score(model, iter(batches), nn.functional.cross_entropy)
    free = {block.name for block in found(model) if block.gives}
    assert scores.keys() >= free
    assert all(own.shape == (1,) and own.isfinite().all() for own in scores.values())


def test_silenced_blocks_of_a_network_of_yours_are_silenced_exactly():
    torch.manual_seed(0)
    model = resnet().eval()
    scores = tb.scores.OutputDivergence()(model, [(IMAGES, torch.arange(4))])
    with torch.no_grad():
        whole = model(IMAGES).log_softmax(-1)
        for block in found(model):
            if not block.gives:
                continue
            silent = copy.deepcopy(model)
            for layer, part in block.gives:
                silent.get_parameter(f"{layer}.{part}").zero_()
            without = silent(IMAGES).log_softmax(-1)
            expected = float((without.exp() * (without - whole)).sum(-1).mean())
            assert scores[block.name].item() == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_declared_blocks_are_those_that_can_go():
    model = resnet()
    tb.structure.declare_blocks(model, {"1.1": ("bn2",), "1.2": ["bn2"], "2.0": ()})
    assert branches(model) == {"1.1": ["1.1.bn2"], "1.2": ["1.2.bn2"], "2.0": []}
    units = Blocks(1, least=1).units(copy.deepcopy(model), lambda _: None)
    assert [block.name for block in units.blocks] == ["1.2"]
    wrapped = nn.DataParallel(resnet())
    tb.structure.declare_blocks(wrapped, {"1.1": ("bn2",), "module.1.2": ("bn2",)})
    assert [block.name for block in residual_blocks(wrapped)] == ["1.1", "1.2"]


class Has(nn.Module):
    """A network whose block has a part called branch."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential()
        self.block.branch = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: tb.structure.declare_blocks(resnet(), {"1.7": ("bn2",)}), "no module '1.7'; did you mean '1."),
        (
            lambda: tb.structure.declare_blocks(resnet(), {"1.1": ("bn3",)}),
            "no layer of '1.1' called 'bn3'; did you mean 'bn",
        ),
        (lambda: tb.structure.declare_blocks(resnet(), {"1.1": "bn2"}), r"named one by one; give \('bn2',\)"),
        (lambda: tb.structure.declare_blocks(Has(), {"block": ("branch",)}), "has a `branch` of its own"),
        (
            lambda: tb.structure.declare_blocks(zoo.model("resnet18", (3, 8, 8), 5)(), {"layer1.1": ("bn2",)}),
            "of its own",
        ),
        (lambda: Blocks().units(plain(), lambda own: own(IMAGES)), "none gives its input without a branch; use one"),
        (lambda: Blocks().units(in_a_row(Basic(4, 4)), lambda own: own(IMAGES)), "each is the first of its stage"),
        (lambda: found(resnet(), torch.randn(4, 3, 8, 8)), "could not be called to find its residual blocks"),
    ],
)
def test_bad_input_gets_a_sentence(act, says):
    with pytest.raises(TombolaError, match=says):
        act()
