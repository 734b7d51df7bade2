"""Targets: what is counted is what shrinking leaves, the density is the largest, and what cannot be reached says so."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from torch import nn

import tombola as tb
from tombola import zoo
from tombola.cli import main
from tombola.methods import counted, fitted, sized
from tombola.shrinking import SmallSizes, Target
from tombola.studies import Engine, Serial, Store, StudyFile, aimed
from tombola.testing import toy_task

EXAMPLE = torch.randn(2, 1, 8, 8)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 20, 3, padding=1), nn.BatchNorm2d(20), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(nn.Linear(20, 6), nn.ReLU(), nn.Linear(6, 3)),
    )


def chosen(model: nn.Module, **how) -> tb.Mask:
    return tb.select(tb.scores.magnitude(model), granularity=tb.Channels(), model=model, example=EXAMPLE, **how)


def widths(model: nn.Module) -> list[int]:
    return [len(own.weight) for own in model.modules() if isinstance(own, nn.Conv2d | nn.Linear)]


class Residual(nn.Module):
    """A stem and a block with a shortcut, so that the stem's channels and the block's last ones go together."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.one = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(12, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.end = nn.Linear(8, 5)

    def forward(self, images):
        stream = self.stem(images)
        return self.end((stream + self.two(self.one(stream))).relu().mean((2, 3)))


TASK = toy_task(Residual, epochs=1)
RESNET = toy_task(partial(zoo.MODELS["resnet20"], (1, 8, 8), 5, 0.125), epochs=1)


def test_what_is_counted_is_what_shrinking_leaves_and_one_unit_more_is_too_much():
    model = network()
    sizes, units = SmallSizes(model, EXAMPLE), tb.Channels().units(model, lambda own: own(EXAMPLE.to("meta")))
    mask = chosen(model, flops=0.5)
    small = tb.shrink(model, mask, example=EXAMPLE)
    alone = SmallSizes(small, EXAMPLE).whole
    assert sizes.of(mask) == alone
    assert alone.parameters == sum(p.numel() for p in small.parameters())
    assert alone.flops <= 0.5 * sizes.whole.flops
    total = sum(units.families.sizes.values())
    kept = sum(own.out_channels for own in small if isinstance(own, nn.Conv2d)) + small[-3].out_features
    assert mask == chosen(model, density=kept / total)
    assert sizes.of(chosen(model, density=(kept + 1) / total)).flops > 0.5 * sizes.whole.flops


def test_several_targets_hold_together_and_numbers_are_numbers():
    model = network()
    whole = SmallSizes(model, EXAMPLE)
    both = whole.of(chosen(model, flops=0.7, parameters=0.3))
    assert both.parameters <= 0.3 * whole.whole.parameters
    assert whole.of(chosen(model, parameters=1500)).parameters <= 1500


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"flops": 0.001}, "cannot be reached: the fewest units that may stay, .* leave flops="),
        ({"flops": 0.5, "protect": ("*",)}, "all that could be removed is protected"),
        ({"flops": 0.5, "protect": ("cnv",)}, "no layer to protect 'cnv'"),
        ({"flops": 0.5, "density": 0.5}, "both say how much stays"),
        ({"flops": -1.0}, "give a number above 0"),
        ({"speedup": 0.5}, "at least 1"),
        ({"flop": 0.5}, "did you mean 'flops'"),
        ({"speedup": 1e6}, "cannot be reached here: the fastest"),
    ],
)
def test_what_cannot_be_is_said(how, said):
    with pytest.raises(tb.TombolaError, match=said):
        chosen(network(), **how)


def test_widths_are_multiples_where_a_layer_is_as_wide_and_protected_layers_lose_nothing():
    model = network()
    small = tb.shrink(model, chosen(model, flops=0.5, round_to=8), example=EXAMPLE)
    assert all(now % 8 == 0 or now == before for now, before in zip(widths(small)[:2], (16, 20), strict=True))
    assert widths(small)[0] == 8
    kept = tb.shrink(model, chosen(model, flops=0.7, protect="3"), example=EXAMPLE)
    assert widths(kept)[1] == 20
    assert widths(kept)[0] < 16
    assert fitted(tb.Iterative(), protect=("fc",)).prunable.exclude == ("fc", "fc.*")


@pytest.mark.parametrize("density", [0.8, 0.5, 0.3])
def test_multiples_keep_no_more_than_the_density(density):
    model = network()
    units = tb.Channels(round_to=4).units(model, lambda own: own(EXAMPLE.to("meta")))
    kept = units.choose(tb.scores.magnitude(model), density, scope="global", within=None, floor=0)
    assert kept.total_kept <= round(density * kept.size)


def test_an_earlier_mask_holds():
    model = network()
    first = chosen(model, flops=0.6)
    second = chosen(model, flops=0.3, within=first)
    assert second & first == second


METHODS = {
    "snip": tb.OneShot(granularity=tb.Channels()),
    "imp": tb.Iterative(granularity=tb.Channels(), count=1),
    "early-bird": tb.EarlyBird(granularity=tb.Channels()),
    "loft": tb.method("loft"),
}
SLOW = {"loft": pytest.mark.slow}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "method", [pytest.param(own, id=name, marks=SLOW.get(name, ())) for name, own in METHODS.items()]
)
def test_a_search_comes_to_what_was_counted_before_it(method):
    # LoFT removes only what is inside blocks of a ResNet.
    task, flops = (RESNET, 0.9) if isinstance(method, tb.methods.LoFT) else (TASK, 0.5)
    target = Target(flops=flops)
    found = sized(task, method, target)
    ticket = tb.find(task, found.method, progress=False)
    assert counted(task, ticket, tb.Run()) == found.counted
    assert found.counted["flops"] <= target.flops


def test_single_weights_are_counted_in_parameters_alone():
    ticket = tb.find(TASK, tb.OneShot(), progress=False, parameters=0.2)
    whole = sum(p.numel() for p in TASK.build(0).parameters())
    left = ticket.mask.density_of(dict(TASK.build(0).named_parameters())) * whole
    assert 0.2 * whole - 1 < left <= 0.2 * whole
    assert ticket.provenance.target["asked"] == {"parameters": 0.2}
    with pytest.raises(tb.TombolaError, match="no layer to protect 'edn'"):
        tb.find(TASK, tb.OneShot(), protect=("edn",))
    with pytest.raises(tb.TombolaError, match="computes with their zeros"):
        tb.find(TASK, tb.OneShot(), flops=0.5)


@pytest.mark.parametrize("kind", ["2:4", "query-key", "filter:1"])
def test_units_whose_number_is_given_take_no_target_wherever_it_is_asked_for(kind, tmp_path, capsys):
    units, model = tb.structure.granularity(kind), network()
    with pytest.raises(tb.TombolaError, match=rf"^units of kind {kind} take no target, since"):
        sized(TASK, tb.OneShot(density=0.5, granularity=units), Target(flops=0.5))
    with pytest.raises(tb.TombolaError, match=rf"^units of kind {kind} take no target, since"):
        tb.select(tb.scores.magnitude(model), flops=0.5, granularity=units, model=model, example=EXAMPLE)
    with pytest.raises(tb.TombolaError, match=rf"^units of kind {kind} are in no groups"):
        tb.sensitivity(TASK, granularity=units)
    table = f'[[methods]]\nmethod = "snip"\nsettings = {{ granularity = "{kind}" }}\ntarget = {{ flops = 0.5 }}\n'
    (tmp_path / "s.toml").write_text(table)
    with pytest.raises(tb.TombolaError, match=rf"^units of kind {kind} take no target, since"):
        StudyFile.read(tmp_path / "s.toml").grids()
    for words in (["find", "snip", "--flops", "0.5"], ["smaller"], ["sensitivity"]):
        assert main([*words, "--granularity", kind]) == 2
        assert f"units of kind {kind} " in capsys.readouterr().err


def test_a_ticket_file_keeps_its_target(tmp_path):
    ticket = tb.find(TASK, tb.OneShot(granularity=tb.Channels()), progress=False, flops=0.5)
    ticket.save(tmp_path / "t")
    told = tb.Ticket.load(tmp_path / "t").provenance.target
    assert told["asked"] == {"flops": 0.5}
    assert told["counted"]["flops"] <= 0.5


def test_a_comparison_says_what_was_asked_and_counted():
    study = tb.compare(TASK, {"mine": METHODS["snip"]}, flops=0.5, seeds=1, controls=())
    assert study.verdicts[0].subject == "mine"
    ((_, asked, density, flops, *_),) = study.sections[0].rows
    assert (asked, float(density)) == ("flops 0.5", pytest.approx(study.verdicts[0].density, abs=1e-4))
    assert float(flops.rstrip("%")) <= 50
    with pytest.raises(tb.TombolaError, match="a ticket has its size"):
        tb.compare(TASK, [tb.find(TASK, METHODS["snip"], progress=False)], flops=0.5, seeds=1)


def test_a_clock_is_read_once_in_the_life_of_a_store(tmp_path, monkeypatch):
    engine = Engine(Store(tmp_path), Serial(torch.device("cpu")))
    method, first = aimed(TASK, METHODS["snip"], {"flops": 0.5}, engine.store, engine.executor)
    monkeypatch.setattr("tombola.studies.targets.sized", lambda *_, **__: pytest.fail("solved for again"))
    assert aimed(TASK, METHODS["snip"], {"flops": 0.5}, engine.store, engine.executor) == (method, first)
    (kept,) = tmp_path.glob("target-*.json")
    kept.write_text(json.dumps({"density": 0.5}))
    with pytest.raises(tb.TombolaError, match="is damaged"):
        aimed(TASK, METHODS["snip"], {"flops": 0.5}, engine.store, engine.executor)


def test_settings_at_their_defaults_are_no_part_of_an_identity():
    said = tb.training.identity(tb.Channels())
    assert said == {"is": "coupled-channels@1", "reduction": "sum", "most": 0.9}
    assert tb.training.identity(tb.Channels(round_to=8))["round_to"] == 8


def test_a_study_file_takes_what_is_counted_and_refuses_what_a_clock_decides(tmp_path):
    (tmp_path / "s.toml").write_text('[[methods]]\nmethod = "early-bird"\ntarget = { speedup = 2.0 }\n')
    with pytest.raises(tb.TombolaError, match="measured by a clock"):
        StudyFile.read(tmp_path / "s.toml")
    (tmp_path / "s.toml").write_text('seeds = 1\n[[methods]]\nmethod = "imp"\ntarget = { parameters = 0.1 }\n')
    ((_, method),) = StudyFile.read(tmp_path / "s.toml").grids()[0].subjects
    assert method.density == pytest.approx(0.0926, abs=1e-3)


def test_sensitivity_cuts_a_group_to_widths_that_it_can_have_and_no_other_group():
    found = tb.sensitivity(TASK, TASK.build(0), granularity=tb.Channels(round_to=4), densities=(0.75, 0.5, 0.1))
    sizes = {own.group: own.units for own in found.cuts} | dict.fromkeys(found.whole_groups, 1)
    for own in found.cuts:
        assert own.kept < own.units
        assert own.kept % 4 == 0 or own.units < 4
    assert found.scope(tolerance=1.0).keys() == sizes.keys()


def test_sensitivity_cuts_coupled_channels_together_and_gives_a_scope():
    found = tb.sensitivity(TASK, TASK.build(0), densities=(0.5,))
    assert found.groups["stem.0"][0].layers == ("stem.0", "two.0")
    assert all(own.flops < 1 and own.kept == own.units // 2 for own in found.cuts)
    scope = found.scope(flops=0.8)
    model = TASK.build(0)
    example = next(iter(TASK.batches("test", 0, 0)))[0][:2]
    scores, how = tb.scores.magnitude(model), {"granularity": tb.Channels(), "model": model, "example": example}
    sizes = SmallSizes(model, example)
    assert sizes.of(tb.select(scores, scope=scope, **how)).flops <= 0.8 * sizes.whole.flops
    with pytest.raises(tb.TombolaError, match="cannot be reached"):
        found.scope(flops=0.01)
