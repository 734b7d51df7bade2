"""Residual blocks as units: which can go, and that a network without one is the network whose branch gives zero."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tombola as tb
from tombola import Blocks, TombolaError, zoo
from tombola.cli import main
from tombola.structure import residual_blocks
from tombola.testing import check_method, toy_task
from tombola.zoo.resnet import small_resnet

PROJECTED = partial(small_resnet, kind="basic", shortcut="projection", input_shape=(3, 32, 32), classes=10)


def units_of(model: nn.Module, own: Blocks | None = None):
    return (own or Blocks()).units(model, lambda _: None)


def mask_without(model: nn.Module, own: Blocks, seed: int = 0) -> tb.Mask:
    units = units_of(model, own)
    kept = units.choose(tb.scores.random(model, seed=seed), None, scope="global", within=None, floor=0)
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
    ("depth", "macs", "removed"), [(32, 69_124_736, 1), (32, 69_124_736, 5), (56, 125_747_840, 12)]
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


@pytest.mark.parametrize("name", ["resnet32", "preresnet56", "resnet50", "wrn-28-2", "vit-tiny", "resnet18"])
def test_a_network_without_blocks_is_the_one_whose_branches_give_zero(name):
    torch.manual_seed(0)
    model, x = zoo.model(name, (3, 8, 8), 5, width=0.25)().double().eval(), torch.randn(3, 3, 8, 8).double()
    own = Blocks(3 if name != "resnet18" else 2, least=1)
    mask = mask_without(model, own)
    small, plan = tb.shrink(model, mask, example=x), tb.shrinking(model, mask, x)
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
    kept = units.choose(tb.scores.magnitude(model), None, scope="global", within=None, floor=0)
    assert {stage: len(own) for stage, own in units.removed(kept).items()} == {"layer1": 3, "layer2": 2, "layer3": 0}


def test_the_density_counts_the_blocks_that_can_go():
    model = PROJECTED(32)
    units = units_of(model)
    kept = units.choose(tb.scores.random(model), 0.5, scope="global", within=None, floor=0)
    assert (kept.total_kept, kept.size) == (6, 12)
    again = units.choose(tb.scores.random(model, seed=1), 0.4, scope="global", within=kept, floor=0)
    assert again <= kept


@pytest.mark.parametrize(
    "score", [tb.scores.Snip(), tb.scores.Grasp(), tb.scores.GraspFirstOrder()], ids=lambda s: s.name
)
def test_tickets_at_initialisation_keep_the_laws_and_train_without_their_blocks(score):
    build = partial(zoo.MODELS["resnet32"], (1, 8, 8), 5, 0.25)
    method = tb.OneShot(score=score, granularity=Blocks(4))
    check_method(method, build)
    task = toy_task(build)
    ticket = tb.find(task, method, progress=False)
    trained = tb.train(task, ticket)
    assert trained.plan is not None
    assert len(trained.plan.idle) == 4
    assert trained.cost.flops < tb.train(task).cost.flops * 0.8


def test_controls_remove_as_many_blocks_of_each_stage():
    task = toy_task(partial(zoo.MODELS["resnet32"], (1, 8, 8), 5, 0.25))
    verdict = tb.check(task, tb.OneShot(granularity=Blocks(3)), seeds=1, controls=("shuffle", "random", "fresh-init"))
    assert len(verdict.controls) == 3


def test_after_training_with_rewinding():
    task = toy_task(partial(zoo.MODELS["resnet20"], (1, 8, 8), 5, 0.25), epochs=2)
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
            "which has 0 that can go here",
        ),
        (lambda: residual_blocks(nn.Sequential(Own())), "'0' says that its branch ends in '0.norm', which it does not"),
        (lambda: tb.OneShot(granularity=Blocks(0)), "remove=0 with least=2; give numbers of blocks"),
        (lambda: tb.OneShot(granularity=Blocks(), scope="erk"), "not blocks; use global or layerwise"),
        (lambda: mask_without(zoo.model("resnet18", (3, 8, 8), 5)(), Blocks(1)), "of 4 that could, 0 can where each"),
    ],
)
def test_bad_input_gets_a_sentence(act, says):
    with pytest.raises(TombolaError, match=says):
        act()


def test_the_command_line_removes_blocks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--model", "resnet32", "--width", "0.25", "--recipe.epochs", "1", "--out", "run"]
    assert main(["find", "snip", "--granularity", "block:3", *words]) == 0
    assert main(["shrink", "run", "--out", "small"]) == 0
    assert "parameters" in capsys.readouterr().out
    assert main(["find", "snip", "--granularity", "block:3", "--model", "vgg11", "--width", "0.25"]) == 2
    assert "no residual block" in capsys.readouterr().err
