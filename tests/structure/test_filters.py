"""As many filters as removed blocks have, from inside all blocks."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import tombola as tb
from tombola import TombolaError, zoo
from tombola.structure import Filters, granularity, granularity_of, kept_share
from tombola.testing import toy_task
from tombola.zoo.resnet import small_resnet


def units_of(model, own):
    return own.units(model, lambda network: network(torch.zeros(2, 3, 16, 16)))


@pytest.mark.parametrize(("blocks", "left"), [(1, 1200), (2, 1168)])
def test_as_many_filters_go_as_the_papers_blocks_have(blocks, left):
    torch.manual_seed(0)
    model = small_resnet(32, "basic", "projection", (3, 16, 16), 10)
    units = units_of(model, Filters(blocks))
    assert sum(units.filters.values()) + 16 == 1232  # and those of the first convolution
    kept = units.choose(tb.scores.magnitude(model), kept_share(units, 1.0), scope="layerwise", within=None, floor=0)
    assert 1232 - sum(map(len, units.removed(kept).values())) == left


@pytest.mark.parametrize(
    ("name", "layers"),
    [("resnet20", 9), ("resnet20-projection", 9), ("preresnet20", 9), ("wrn-28-2", 12), ("resnet50", 32)],
)
def test_only_filters_that_feed_their_own_block_can_go(name, layers):
    units = units_of(zoo.model(name, (3, 16, 16), 5, 0.25)(), Filters(1))
    last = "conv3" if name == "resnet50" else "conv2"
    assert len(units.inner) == layers
    assert not any(last in group.name or "shortcut" in group.name for group in units.inner)


def test_a_ticket_of_filters_trains_smaller_with_the_stream_as_wide():
    task = toy_task(partial(zoo.MODELS["resnet32"], (1, 8, 8), 5, 0.5))
    blocks = tb.find(task, tb.method("layer-snip", granularity=tb.structure.Blocks(2)), progress=False)
    filters = tb.find(task, tb.method("filter-snip", granularity=Filters(2)), progress=False)
    widths = {"layer1": 8, "layer2": 16, "layer3": 32}
    gone = sum(2 * widths[stage] * len(own) for stage, own in blocks.removed.items())
    assert sum(map(len, filters.removed.values())) == gone
    trained = tb.train(task, filters)
    assert trained.plan is not None
    assert not trained.plan.idle
    assert all(len(kept.outputs) < 32 for name, kept in trained.plan.kept.items() if name.endswith("conv1"))
    assert all(block.conv2.out_channels == 8 for block in trained.model.layer1)


def test_the_granularity_is_named_and_stored():
    assert granularity("filter:3") == Filters(3)
    assert granularity_of(tb.training.identity(Filters(3, least=1))) == Filters(3, least=1)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: units_of(zoo.model("vgg11", (3, 16, 16), 5, 0.25)(), Filters()), "no residual block"),
        (lambda: tb.OneShot(granularity=Filters(0)), "remove=0 with least=2"),
        (lambda: nearly_all(Filters(11, least=1)), "only 125 of 140 inside all blocks can go"),
    ],
)
def test_what_cannot_go_is_refused(act, says):
    with pytest.raises(TombolaError, match=says):
        act()


def nearly_all(own):
    model = zoo.model("resnet32", (3, 16, 16), 5, 0.25)()
    units = units_of(model, own)
    units.choose(tb.scores.magnitude(model), kept_share(units, 1.0), scope="layerwise", within=None, floor=0)
