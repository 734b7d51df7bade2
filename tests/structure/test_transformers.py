"""Transformers: heads, hidden neurons and single query and key weights, in ours and in Hugging Face's."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

import tombola as tb
from kinds import WEIGHT_SCORES
from networks import short_transformer
from tombola import Mask, TombolaError, zoo
from tombola.cli import main
from tombola.methods.early_bird import watching
from tombola.structure import Blocks, Granularity, Part, PartUnits, QueryKey, narrowed, parts_of
from tombola.testing import check_method, toy_task
from tombola.training import Run

SIZES = {"vocab_size": 50, "max_position_embeddings": 32}
BERT = SIZES | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
DISTIL = SIZES | {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
ENCODERS = {"Bert": BERT, "Roberta": BERT, "Electra": BERT, "DistilBert": DISTIL}
KINDS = ("head", "neuron")


def logits(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs).logits


def plain(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return model(inputs)


def network(name: str):
    """A network in evaluation mode, inputs, and how it is called on them."""
    torch.manual_seed(0)
    if name not in ENCODERS:
        return zoo.model(name, (3, 8, 8), 2, width=0.5)().double().eval(), torch.randn(3, 3, 8, 8).double(), plain
    config = getattr(transformers, f"{name}Config")(**ENCODERS[name], pad_token_id=0)
    model = getattr(transformers, f"{name}ForSequenceClassification")(config)
    words = torch.randint(5, 40, (3, 7))
    words[0, 4:] = 0
    return model.double().eval(), {"input_ids": words, "attention_mask": (words > 0).long()}, logits


def mask_of(own: Granularity, model: nn.Module, density: float = 0.5, seed: int = 0) -> Mask:
    units = own.units(model, lambda _: None)
    kept = units.choose(tb.scores.random(model, seed=seed), density, scope="global", within=None, floor=1)
    return units.expand(kept, dict(model.named_parameters()))


@pytest.mark.parametrize("name", ENCODERS)
def test_the_parts_of_an_encoder_are_known(name):
    model, _, _ = network(name)
    found = parts_of(model)
    assert (
        sorted((own.kind, len(own.makes), own.width) for own in found) == [("head", 3, 8)] * 2 + [("neuron", 1, 1)] * 2
    )


QUICK = (("vit-tiny", "head"), ("Bert", "neuron"), ("DistilBert", "head"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=() if (name, kind) in QUICK else pytest.mark.slow)
        for name in ("vit-tiny", *ENCODERS)
        for kind in KINDS
    ],
)
def test_the_smaller_transformer_is_the_masked_one_also_after_a_step(name, kind):
    model, x, call = network(name)
    mask = mask_of(PartUnits(kind), model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(2):
        _step(model, mask, optimizer, x, call)
    plan = tb.shrinking.preview(model, mask, x, call)
    assert plan.mask == Mask({})
    own = torch.optim.Adam(model.parameters(), 1e-2)
    own.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    small = tb.shrink(model, mask, own, x, call)
    assert type(small) is type(model)
    assert sum(p.numel() for p in small.parameters()) < 0.95 * sum(p.numel() for p in model.parameters())
    assert torch.allclose(call(small, x), call(model, x), rtol=1e-9, atol=1e-9)
    _step(small, plan.mask, own, x, call)
    _step(model, mask, optimizer, x, call)
    axes = plan.axes(model)
    for key, parameter in model.named_parameters():
        assert torch.allclose(
            small.get_parameter(key), narrowed(parameter.data, axes.get(key, {})), rtol=1e-9, atol=1e-9
        ), key


def _step(model, mask, optimizer, x, call):
    with tb.attach(mask, model, optimizer):
        optimizer.zero_grad()
        F.cross_entropy(call(model, x), torch.tensor([0, 1, 1])).backward()
        optimizer.step()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name.endswith("Bert") else pytest.mark.slow) for name in ENCODERS]
)
def test_an_encoder_says_how_many_heads_it_has_left(name):
    model, x, call = network(name)
    group = parts_of(model)[0 if name == "DistilBert" else 1].takes
    keep = torch.tensor([True, False, False, True])
    units = PartUnits("head").units(model, lambda _: None)
    full = {own.name: torch.ones(own.size, dtype=torch.bool) for own in units.groups}
    mask = units.expand(Mask.of(full | {group: keep}), dict(model.named_parameters()))
    small = tb.shrink(model, mask, example=x, forward=call)
    attention = [own for own in small.modules() if hasattr(own, "attention_head_size")]
    counts = [getattr(own, "num_attention_heads", getattr(own, "n_heads", None)) for own in attention]
    assert counts == [2, 4]


def test_a_small_encoder_is_stored_and_built_again(tmp_path):
    model, x, call = network("Bert")
    mask = mask_of(PartUnits("head"), model)
    small, plan = tb.shrink(model, mask, example=x, forward=call), tb.shrinking.preview(model, mask, x, call)
    tb.shrinking.save_small(tmp_path, small, plan)
    assert torch.equal(call(tb.load_small(tmp_path, network("Bert")[0]).eval(), x), call(small, x))


@pytest.mark.slow
def test_a_small_transformer_runs_in_onnx_runtime(tmp_path):
    model, x = short_transformer().eval(), torch.randn(3, 1, 8, 8)
    small = tb.shrink(model, mask_of(PartUnits("head"), model), example=x)
    assert tb.shrinking.to_onnx(small, x, tmp_path / "small.onnx") < 1e-5


# Query and key weights


def test_the_query_and_key_weights_of_two_networks_differ_in_half_of_the_places():
    """The public code writes keys over queries and so sees a quarter."""
    masks = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = transformers.BertModel(transformers.BertConfig(**BERT))
        units = QueryKey().units(model, lambda _: None)
        masks.append(units.choose(tb.scores.magnitude(model), 0.5, scope="global", within=None, floor=0))
    assert {name.split(".")[-2] for name in masks[0]} == {"query", "key"}
    assert masks[0].size == 2 * 2 * 32 * 32
    assert masks[0].distance(masks[1]) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("own", [QueryKey(), PartUnits("head"), PartUnits("neuron")], ids=lambda own: own.name)
def test_a_frozen_transformer_settles_when_the_window_is_full_and_only_what_is_dropped_is_held_back(own):
    model, x, call = network("Bert")
    method = tb.Worm(0.5, granularity=own, window=3, truncation=0.0)
    settling = watching(method, model, own.units(model, lambda _: None))
    assert [settling.look() for _ in range(2)] == [False, True]
    F.cross_entropy(call(model, x), torch.tensor([0, 1, 1])).backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    settling.shape_gradients()
    for name, gradient in before.items():
        kept = settling.mask[name] if name in settling.mask else torch.ones_like(gradient, dtype=torch.bool)
        assert torch.equal(model.get_parameter(name).grad, gradient * kept), name


# Methods


@pytest.mark.parametrize(
    ("kind", "own"),
    [pytest.param(tb.EarlyBird, PartUnits("neuron"), marks=pytest.mark.slow), (tb.Worm, PartUnits("head"))],
)
@pytest.mark.filterwarnings("ignore::tombola.methods.SearchWarning")
def test_early_bird_and_worm_keep_the_laws_on_a_transformer(kind, own):
    check_method(kind(0.5, granularity=own, window=2, epsilon=0.3), short_transformer)


PAIRS = [(name, PartUnits("head")) for name in WEIGHT_SCORES]
PAIRS += [("snip", own) for own in (QueryKey(), PartUnits("neuron"), Blocks(least=1))]


@pytest.mark.parametrize(("score", "own"), PAIRS, ids=lambda own: getattr(own, "name", own))
@pytest.mark.filterwarnings("ignore::tombola.tickets.TieWarning")
def test_every_score_goes_with_units_of_a_transformer(score, own):
    score = WEIGHT_SCORES[score]
    task = toy_task(partial(short_transformer, 3 if isinstance(own, Blocks) else 2), 1)
    method = tb.OneShot(0.5, score=score, granularity=own, floor=1, rounds=2)
    ticket = tb.find(task, method, progress=False)
    assert bool(ticket.removed) == (own.name != "query-key")
    assert 0 < ticket.density < 1


def test_heads_are_removed_in_rounds_of_training_too():
    method = tb.Iterative(0.5, score=tb.scores.Snip(), granularity=PartUnits("head"), floor=1, count=1)
    assert tb.find(toy_task(short_transformer, 1), method, progress=False).removed


class Once(torch.autograd.Function):
    """An operation whose gradient has none of its own."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("derivative for aten::once_backward is not implemented")


def test_an_operation_without_a_second_derivative_is_named():
    model, batch = nn.Linear(4, 3), (torch.randn(5, 4), torch.arange(5) % 3)
    with pytest.raises(TombolaError, match="derivative, which aten::once_backward does not have; use grasp-first"):
        tb.scores.grasp(model, [batch], F.cross_entropy, forward=lambda own, x: Once.apply(own(x)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_ticket_of_heads_or_neurons_trains_as_a_smaller_network(kind):
    task = toy_task(short_transformer)
    ticket = tb.find(task, tb.OneShot(0.5, granularity=PartUnits(kind), floor=1), progress=False)
    assert ticket.removed
    small, masked = (tb.train(task, ticket, small=own) for own in (True, False))
    assert small.cost.flops < masked.cost.flops
    assert small.cost.dense_epochs < masked.cost.dense_epochs == 2
    assert sum(p.numel() for p in small.model.parameters()) < sum(p.numel() for p in masked.model.parameters())


def test_controls_of_such_a_ticket_move_whole_units(tmp_path):
    task, kind = toy_task(short_transformer, 1), "head"
    verdict = tb.check(task, tb.OneShot(0.5, granularity=PartUnits(kind), floor=1), seeds=1, controls=("inverted",))
    assert {own.against for own in verdict.controls} == {"inverted"}
    ticket = tb.find(task, tb.EarlyBird(0.5, granularity=PartUnits(kind), window=2, epsilon=1), progress=False)
    ticket.save(tmp_path / "t.safetensors")
    again = tb.check(task, tb.Ticket.load(tmp_path / "t.safetensors"), seeds=1, controls=("shuffle",))
    assert [own.against for own in again.controls] == ["shuffle"]


def test_a_watch_in_ones_own_loop_needs_no_example():
    model, x, call = network("Bert")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    watch = tb.Worm(0.5, granularity=PartUnits("head"), window=3, epsilon=0.01).watch(model, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(call(model, x), torch.tensor([0, 1, 1])).backward()
        optimizer.step()
        if watch.epoch_end():
            break
    small = tb.shrink(model, watch.ticket, optimizer, x, call)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


# What is declared


class Untraceable(nn.Module):
    """A block whose forward a trace cannot follow, and which says what is inside."""

    inner = (Part("channel", ("conv1", "bn1"), "conv2"),)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        if x.device.type == "meta" or _get_current_dispatch_mode() is not None:
            raise RuntimeError("no trace of this")
        return x + self.conv2(F.relu(self.bn1(self.conv1(x))))


def test_a_network_that_cannot_be_traced_is_cut_where_it_says_so():
    torch.manual_seed(0)
    model, x = nn.Sequential(Untraceable(), Untraceable()).eval(), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        for block in model:
            block.bn1.bias.normal_()
    for own in (PartUnits("channel"), tb.Channels()):
        units = own.units(model, lambda m: m(x))
        kept = units.choose(tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1)
        mask = units.expand(kept, dict(model.named_parameters()))
        small = tb.shrink(model, mask, example=x)
        assert [block.conv1.out_channels for block in small] == [4, 4]
        assert [block.bn1.num_features for block in small] == [4, 4]
    ticket = tb.EarlyBird(0.5).watch(model, torch.optim.SGD(model.parameters(), 0.1), example=x).ticket
    assert sum(map(len, ticket.removed.values())) == 8
    assert tb.shrink(model, ticket, example=x)[0].conv1.out_channels < 8


class Gated(nn.Module):
    """A gated feed-forward part, by its names alone."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(6, 10), nn.Linear(6, 10), nn.Linear(10, 6)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def test_a_gate_goes_with_what_it_multiplies():
    model, x = Gated(), torch.randn(2, 4, 6)
    small = tb.shrink(model, mask_of(PartUnits("neuron"), model), example=x)
    assert (small.gate_proj.out_features, small.up_proj.out_features, small.down_proj.in_features) == (5, 5, 5)


class Normed(nn.Module):
    """Hidden neurons between which a norm stands, whatever their layers are called."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.norm = nn.LayerNorm(16, elementwise_affine=False)

    def forward(self, x):
        return self.fc2(F.relu(self.norm(self.fc1(F.relu(self.into(x)))))).sum((1, 2), keepdim=True)


@pytest.mark.filterwarnings("ignore:removed channels of")
def test_what_only_its_name_says_is_masked_and_not_cut():
    torch.manual_seed(0)
    model, x = Normed(), torch.randn(2, 4, 6)
    with pytest.warns(tb.shrinking.ShrinkWarning, match="with fewer its code fails"):
        small = tb.shrink(model, mask_of(PartUnits("neuron"), model), example=x)
    assert small.fc1.out_features == 16


class Attending(nn.Module):
    """Attention with fewer keys than queries."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(8, n) for n in (8, 4, 4, 8))

    def forward(self, x):
        return self.o_proj(self.q_proj(x) * torch.cat([self.k_proj(x) + self.v_proj(x)] * 2, -1))


def test_query_and_key_weights_need_no_heads():
    names = {name for name in QueryKey().units(Attending(), lambda _: None).names}
    assert names == {"q_proj.weight", "k_proj.weight"}
    with pytest.raises(TombolaError, match="no heads that are known"):
        PartUnits("head").units(Attending(), lambda _: None)


class Twins(nn.Module):
    """Two feed-forward parts that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Gated(), Gated()
        self.two.up_proj.weight = self.one.up_proj.weight

    def forward(self, x):
        return self.two(self.one(x))


def test_parts_that_share_a_weight_are_left_as_they_are():
    with pytest.raises(TombolaError, match="no neurons that are known"):
        PartUnits("neuron").units(Twins(), lambda _: None)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda own: nn.Sequential(own)])
def test_a_wrapped_network_is_known_too(wrap):
    model = wrap(short_transformer())
    assert len(parts_of(model)) == 4
    assert {own.kind for own in parts_of(model)} == {"head", "neuron"}


def test_channels_of_a_network_that_cannot_be_traced_are_refused_whatever_its_layers_are_called():
    model = Untraceable()
    model.inner, model.fc1, model.fc2 = (), nn.Linear(3, 4), nn.Linear(4, 3)
    with pytest.raises(TombolaError, match="could not be traced"):
        tb.Channels().units(model, lambda own: own(torch.randn(2, 3, 6, 6)))


def declaring(*own: Part) -> nn.Module:
    model = Untraceable()
    model.inner = own
    return model


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: QueryKey().units(nn.Linear(2, 2), lambda _: None), "no query and key weights that are known"),
        (lambda: PartUnits("head").units(nn.Linear(2, 2), lambda _: None), "no heads that are known; give the module"),
        (
            lambda: parts_of(declaring(Part("channel", ("conv9",), "conv2"))),
            "declared with 'conv9', which",
        ),
        (lambda: parts_of(declaring(Part("channel", ("conv2",), "conv2"))), "takes 8, but 'conv2' makes 3"),
        (lambda: parts_of(declaring(Part("channel", ("conv1",), "conv2", 3))), "takes 8, but units are 3 wide"),
        (lambda: Part("filter", ("conv1",), "conv2"), "no units of kind 'filter'; give head"),
        (lambda: Part("channel", "conv1", "conv2"), r"need the names of the layers that make them, as makes=\("),
        (lambda: Part("channel", ("conv1",), "conv2", 0), "a width of at least 1"),
        (lambda: parts_of(declaring(Part("channel", ("0",), "conv2"))), "with '0', which the network does not have"),
        (lambda: parts_of(declaring(Part("channel", ("conv1",), "bn1"))), "with 'bn1', a BatchNorm2d; name"),
        (
            lambda: parts_of(declaring(Part("channel", ("conv1",), "conv2"), "x")),
            "is not a list of tb.structure.Part alone",
        ),
        (lambda: tb.methods.Slimming(granularity=PartUnits("head")), "units of kind head do not have; give penalty=0"),
        (lambda: tb.EarlyBird(granularity=PartUnits("head"), scope="erk"), "shares weights among layers, not heads"),
        (lambda: mask_of(PartUnits("head"), network("Bert")[0], 0.1), "the floors ask for 2 units"),
    ],
)
def test_bad_input_gets_a_sentence(act, says):
    with pytest.raises(TombolaError, match=says):
        act()


@pytest.mark.slow
def test_the_command_line_finds_and_shrinks_a_transformers_ticket(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--model", "vit-tiny", "--width", "0.34", "--recipe.epochs", "2", "--recipe.batch", "512", "--seed", "0"]
    early = ["--window", "2", "--epsilon", "1", "--density", "0.5"]
    assert main(["find", "early-bird", "--granularity", "head", *early, *words, "--out", "heads"]) == 0
    assert main(["shrink", "heads", "--out", "small"]) == 0
    assert "parameters" in capsys.readouterr().out
    assert main(["find", "worm-transformer", *early, *words, "--out", "weights"]) == 0
    assert main(["find", "network-slimming", "--granularity", "head", *words]) == 2
    assert "give penalty=0" in capsys.readouterr().err


def test_a_transformers_search_counts_as_training():
    run = Run(0)
    ticket = tb.find(
        toy_task(short_transformer, 4), tb.EarlyBird(0.5, granularity=PartUnits("head"), window=2, epsilon=1), run=run
    )
    assert ticket.start.epochs_spent == 1
    assert 1 < run.cost.dense_epochs < 1.1  # the search for heads calls the network once
