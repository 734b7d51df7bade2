"""Residual blocks as units: which can go, and that a network without one is the network whose branch gives zero."""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tombola as tb
from kinds import BLOCK_SCORES
from networks import short_resnet
from tombola import TombolaError, zoo
from tombola.cli import main
from tombola.scores.feature_scores import importances
from tombola.structure import Blocks, kept_share, residual_blocks
from tombola.testing import check_method, toy_task
from tombola.zoo.resnet import small_resnet

PROJECTED = partial(small_resnet, kind="basic", shortcut="projection", input_shape=(3, 32, 32), classes=10)


def units_of(model: nn.Module, own: Blocks | None = None):
    return (own or Blocks()).units(model, lambda _: None)


def mask_without(model: nn.Module, own: Blocks, seed: int = 0) -> tb.Mask:
    units = units_of(model, own)
    kept = units.choose(
        tb.scores.random(model, seed=seed), kept_share(units, 1.0), scope="global", within=None, floor=0
    )
    return units.expand(kept, dict(model.named_parameters()))


@pytest.mark.parametrize(("depth", "candidates", "most"), [(32, 12, 9), (56, 24, 21)])
def test_as_many_blocks_can_go_as_in_the_paper(depth, candidates, most):
    model = PROJECTED(depth)
    assert len(units_of(model).blocks) == candidates
    assert not any(block.name.endswith(".0") for block in units_of(model).blocks)
    mask_without(model, Blocks(most))
    with pytest.raises(TombolaError, match=f"{most + 1} blocks cannot go: of {candidates} that could, {most} can"):
        mask_without(model, Blocks(most + 1))


@pytest.mark.parametrize(
    ("depth", "macs", "removed"),
    [
        pytest.param(32, 69_124_736, 1, marks=pytest.mark.slow),
        (32, 69_124_736, 5),
        pytest.param(56, 125_747_840, 12, marks=pytest.mark.slow),
    ],
)
def test_every_block_costs_what_the_paper_says(depth, macs, removed):
    model, x = PROJECTED(depth), torch.randn(2, 3, 32, 32)
    small = tb.shrink(model, mask_without(model, Blocks(removed)), example=x)
    counts = []
    for network in (model, small):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(x[:1])
        counts.append(counter.get_total_flops() // 2)
    assert counts == [macs, macs - removed * 4_718_592]


def test_the_first_blocks_to_go_take_32_filters_each():
    model, x = PROJECTED(32), torch.randn(2, 3, 32, 32)
    filters = []
    for removed in (0, 1, 2):
        units = units_of(model)
        kept = units.kept({"layer1": tuple(range(removed))} if removed else {})
        small = tb.shrink(model, units.expand(kept, dict(model.named_parameters())), example=x)
        filters.append(sum(m.out_channels for m in small.modules() if isinstance(m, nn.Conv2d)))
    assert filters == [1232, 1200, 1168]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("resnet32", marks=pytest.mark.slow),
        pytest.param("preresnet56", marks=pytest.mark.slow),
        pytest.param("resnet50", marks=pytest.mark.slow),
        "wrn-28-2",
        "vit-tiny",
        "resnet18",
    ],
)
def test_a_network_without_blocks_is_the_one_whose_branches_give_zero(name):
    torch.manual_seed(0)
    model, x = zoo.model(name, (3, 8, 8), 5, width=0.25)().double().eval(), torch.randn(3, 3, 8, 8).double()
    own = Blocks(3 if name != "resnet18" else 2, least=1)
    mask = mask_without(model, own)
    small, plan = tb.shrink(model, mask, example=x), tb.shrinking.preview(model, mask, x)
    assert len(plan.idle) == own.remove
    assert plan.mask == tb.Mask({})
    named = {block.name: block for block in residual_blocks(model)}
    with torch.no_grad():
        for block in plan.idle:
            for layer, part in named[block].gives:
                model.get_parameter(f"{layer}.{part}").zero_()
        assert torch.allclose(small(x), model(x), rtol=1e-12, atol=1e-12)


def test_sums_choose_small_blocks_and_each_stage_keeps_two():
    torch.manual_seed(0)
    model = PROJECTED(32)
    units = units_of(model, Blocks(5))
    kept = units.choose(tb.scores.magnitude(model), kept_share(units, 1.0), scope="global", within=None, floor=0)
    assert {stage: len(own) for stage, own in units.removed(kept).items()} == {"layer1": 3, "layer2": 2, "layer3": 0}


def test_the_density_counts_the_blocks_that_can_go():
    model = PROJECTED(32)
    units = units_of(model)
    kept = units.choose(tb.scores.random(model), 0.5, scope="global", within=None, floor=0)
    assert (kept.total_kept, kept.size) == (6, 12)
    again = units.choose(tb.scores.random(model, seed=1), 0.4, scope="global", within=kept, floor=0)
    assert again <= kept


def test_tickets_at_initialisation_keep_the_laws_and_train_without_their_blocks():
    score = tb.scores.Snip()
    build = partial(short_resnet, 4)
    method = tb.OneShot(score=score, granularity=Blocks(4))
    check_method(method, build)
    task = toy_task(build)
    ticket = tb.find(task, method, progress=False)
    trained = tb.train(task, ticket)
    assert trained.plan is not None
    assert len(trained.plan.idle) == 4
    assert trained.cost.flops < tb.train(task).cost.flops * 0.8


def test_controls_remove_as_many_blocks_of_each_stage():
    task = toy_task(partial(short_resnet, 4), epochs=1)
    verdict = tb.check(task, tb.OneShot(granularity=Blocks(3)), seeds=1, controls=("shuffle", "random"))
    assert len(verdict.controls) == 2


def test_after_training_with_rewinding():
    task = toy_task(short_resnet)
    method = tb.Iterative(granularity=Blocks(2), score=tb.scores.Snip(), count=1, rewind="1ep")
    ticket = tb.find(task, method, progress=False)
    assert sum(map(len, ticket.removed.values())) == 2
    assert ticket.start.what == "1ep"


class Own(nn.Module):
    """A block that says that its branch ends where nothing is."""

    branch = ("norm",)

    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: units_of(zoo.model("vgg11", (3, 8, 8), 5)()), "no residual block that could be removed: none gives"),
        (
            lambda: units_of(zoo.model("resnet18", (3, 8, 8), 5)(), Blocks()).kept({"layer9": (0,)}),
            "which has no units here",
        ),
        (lambda: residual_blocks(nn.Sequential(Own())), "'0' says that its branch ends in '0.norm', which it does not"),
        (lambda: tb.OneShot(granularity=Blocks(0)), "remove=0 with least=2; give numbers of blocks"),
        (lambda: tb.OneShot(granularity=Blocks(), scope="erk"), "not blocks; use global or layerwise"),
        (lambda: mask_without(zoo.model("resnet18", (3, 8, 8), 5)(), Blocks(4)), "of 4 that could, 3 can where each"),
    ],
)
def test_bad_input_gets_a_sentence(act, says):
    with pytest.raises(TombolaError, match=says):
        act()


def test_the_command_line_removes_blocks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--data", "digits", "--model", "resnet20", "--width", "0.25", "--recipe.epochs", "1", "--out", "run"]
    assert main(["find", "snip", "--granularity", "block:2", *words]) == 0
    assert main(["shrink", "run", "--out", "small"]) == 0
    assert "parameters" in capsys.readouterr().out
    assert main(["find", "snip", "--granularity", "block:3", "--data", "digits", "--model", "lenet-300-100"]) == 2
    assert "no residual block" in capsys.readouterr().err


@pytest.mark.slow
def test_methods_of_blocks_are_compared_by_how_many_they_remove(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--model", "resnet20", "--width", "0.25", "--recipe.epochs", "1", "--seeds", "1", "--json"]
    assert (
        main(
            [
                "compare",
                "layer-random",
                "random",
                "--remove",
                "1",
                "2",
                "--densities",
                "0.5",
                "--controls",
                "random",
                *words,
            ]
        )
        == 0
    )
    verdicts = json.loads(capsys.readouterr().out)["verdicts"]
    assert [(own["subject"], own["density"]) for own in verdicts] == [
        ("layer-random", 5 / 6),
        ("layer-random", 4 / 6),
        ("random", 0.5),
    ]
    made = Path("runs/compare").glob("layer-random-0.6667*/result.json")
    assert "tombola train layer-random --remove 2" in json.loads(next(iter(made)).read_text())["command"]
    assert main(["train", "layer-random", "--remove", "2", *words[:6], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["density"] == 4 / 6


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["check", "layer-snip", "--density", "0.5"],
            "'layer-snip' removes whole blocks; give their number, as --remove 3",
        ),
        (["train", "snip", "--remove", "2"], "'snip' keeps a share of its weights; give a density instead"),
        (["train", "filter-snip", "--remove", "4", "--model", "resnet20"], "4 blocks cannot go: of 6 that could, 3"),
    ],
)
def test_how_much_goes_is_asked_for_as_the_method_counts(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert says in capsys.readouterr().err


# Scores of blocks


def lively(name: str = "resnet20", shape=(3, 16, 16)) -> tuple[nn.Module, list]:
    torch.manual_seed(0)
    model = zoo.model(name, shape, 5, width=0.25)()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model, [(torch.randn(16, *shape), torch.randint(0, 5, (16,))) for _ in range(2)]


@pytest.mark.parametrize("score", BLOCK_SCORES.values(), ids=BLOCK_SCORES)
def test_scores_of_blocks_are_pure_finite_and_repeatable(score):
    model, batches = lively()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    random = torch.get_rng_state()
    scores = score(model, batches, nn.functional.cross_entropy, seed=3)
    again = score(model, batches, nn.functional.cross_entropy, seed=3)
    assert {name for name in scores} >= {block.name for block in units_of(model).blocks}
    assert all(own.shape == (1,) and own.isfinite().all() for own in scores.values())
    assert all(torch.equal(own, again[name]) for name, own in scores.items())
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())
    assert modes == [m.training for m in model.modules()]
    assert torch.equal(random, torch.get_rng_state())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("score", [tb.scores.FeatureSimilarity(), tb.scores.OutputDivergence()], ids=lambda s: s.name)
def test_a_block_that_adds_nothing_is_worth_nothing(score):
    model, batches = lively()
    with torch.no_grad():
        model.layer2[1].bn2.weight.zero_()
        model.layer2[1].bn2.bias.zero_()
    scores = score(model, batches)
    assert scores["layer2.1"].item() == pytest.approx(0, abs=1e-6)
    assert min(own.item() for name, own in scores.items() if name != "layer2.1") > 1e-5


@pytest.mark.parametrize("name", ["resnet20", "preresnet20", "vit-tiny"])
def test_a_block_is_silenced_exactly_and_what_comes_before_it_is_computed_once(name):
    model, batches = lively(name, (3, 8, 8))
    called: list[str] = []
    named = dict(model.named_modules())
    for block in residual_blocks(model):
        part = "conv1" if name != "vit-tiny" else "norm1"
        named[block.name].get_submodule(part).register_forward_hook(lambda *_, own=block.name: called.append(own))
    scores = tb.scores.OutputDivergence()(model, batches)
    count, free = len(residual_blocks(model)), [block for block in residual_blocks(model) if block.gives]
    assert len(called) <= len(batches) * (count + sum(count - 1 - i for i in range(count)))
    model.eval()
    with torch.no_grad():
        inputs = torch.cat([x for x, _ in batches])
        whole = model(inputs).log_softmax(-1)
        for block in free:
            kept = {key: own.clone() for key, own in model.state_dict().items()}
            for layer, parameter in block.gives:
                model.get_parameter(f"{layer}.{parameter}").zero_()
            without = model(inputs).log_softmax(-1)
            model.load_state_dict(kept)
            expected = (without.exp() * (without - whole)).sum(-1).mean()
            assert scores[block.name].item() == pytest.approx(float(expected), rel=1e-3, abs=1e-6)


def test_cka_is_that_of_its_definition():
    torch.manual_seed(0)
    one, other = torch.randn(30, 7).double(), torch.randn(30, 4).double()
    x, y = one - one.mean(0), other - other.mean(0)
    expected = (x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert float(tb.scores.cka(one, other)) == pytest.approx(float(expected), rel=1e-10)
    rotation = torch.linalg.qr(torch.randn(7, 7).double())[0]
    assert float(tb.scores.cka(one, 2 * one @ rotation)) == pytest.approx(1, rel=1e-10)


class Constant(nn.Module):
    """A block that gives maps of a known rank."""

    branch = ("conv",)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return torch.ones(len(x), 1, 1, 1) * torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0])) + 0 * self.conv(x)


def test_the_rank_of_maps_is_counted():
    scores = tb.scores.FeatureRank()(nn.Sequential(Constant()), [(torch.randn(5, 1, 4, 4), torch.zeros(5))])
    assert scores["0"].item() == pytest.approx(3 / 4)


def test_importances_have_a_mean_square_of_one_and_find_the_feature_that_tells():
    torch.manual_seed(0)
    targets = torch.arange(60) % 3
    features = torch.randn(60, 8)
    features[:, 5] += 4 * (targets == 1)
    features[:, 7] = 2.0
    found = importances(features, nn.functional.one_hot(targets).double(), 2)
    assert found.shape == (7,)
    assert float(found.square().mean()) == pytest.approx(1)
    assert int(found.argmax()) == 5


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (
            lambda: tb.scores.FeatureSimilarity()(nn.Sequential(Constant()), [(torch.randn(5, 1, 4, 4), 0)]),
            "the network has no linear layer",
        ),
        (lambda: tb.scores.FeatureRank()(*lively("vit-tiny", (1, 8, 8))), "gives no feature maps"),
        (lambda: tb.scores.RandomBlocks()(toy_task().build(0)), "found by calling the network on a batch; give"),
        (
            lambda: tb.scores.RandomBlocks()(toy_task().build(0), [(torch.randn(2, 1, 8, 8), 0)]),
            "no residual block to score",
        ),
        (lambda: tb.scores.ExpectedActivation()(lively()[0]), "needs data and got no batch"),
        (
            lambda: tb.scores.ProjectedImportance()(lively()[0], [(torch.randn(4, 3, 16, 16), torch.randn(4))]),
            "is for class numbers",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(act, says):
    with pytest.raises(TombolaError, match=says):
        act()


def test_one_block_a_round_by_similarity():
    task = toy_task(partial(short_resnet, 4), epochs=1)
    method = tb.Iterative(
        0.5,
        score=tb.scores.FeatureSimilarity(),
        granularity=Blocks(),
        count=3,
        schedule="linear",
        rewind="learning-rate",
    )
    assert sum(map(len, tb.find(task, method, progress=False).removed.values())) == 3
