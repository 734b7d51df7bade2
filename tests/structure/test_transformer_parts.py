"""Whole feed-forward parts as units, alone and beside heads: found before the head, masked, and cut out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tombola as tb
from networks import short_transformer
from tombola.shrinking import load_small, preview, save_small
from tombola.shrinking.silent_layers import SilentLinear
from tombola.structure import TransformerParts, granularity, head_parameters

PIECES = torch.arange(1, 22).reshape(3, 7)


def tiny(kind: str) -> nn.Module:
    """A random transformer of three layers, made by transformers."""
    library = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 24, "pad_token_id": 0, "max_position_embeddings": 32}
    if kind == "GPT2":
        sizes = {"vocab_size": 30, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 32, "pad_token_id": 0}
        sizes |= {"bos_token_id": 1, "eos_token_id": 2}
    config = getattr(library, f"{kind}Config")(**sizes)
    return getattr(library, f"{kind}ForSequenceClassification")(config).eval()


def called(model: nn.Module, pieces: torch.Tensor):
    return model(input_ids=pieces)


def mask_of(model: nn.Module, name: str, density: float, call=called, example=PIECES, floor=0):
    units = granularity(name).units(model, lambda own: call(own, example))
    kept = units.choose(tb.scores.magnitude(model), density, scope="global", within=None, floor=floor)
    return units, kept, units.expand(kept, dict(model.named_parameters()))


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "GPT2", "Llama"])
def test_whole_feed_forward_parts_are_cut_out(kind, tmp_path):
    model = tiny(kind)
    units, kept, mask = mask_of(model, "mlp", 0.34)
    assert kept.counts == {"mlp": 1}
    assert units.kept(units.removed(kept)) == kept
    head = set(head_parameters(model))
    assert not head & set(mask)
    small = tb.shrink(model, mask, example=PIECES, forward=called)  # compares outputs to 1e-9
    silent = [own for own in small.modules() if isinstance(own, SilentLinear)]
    assert len(silent) == 2 * (3 if kind == "Llama" else 2)
    assert (
        sum(own.numel() for own in small.parameters())
        == sum(own.numel() for own in model.parameters()) - mask.size + mask.total_kept
    )
    plan = preview(model, mask, PIECES, called)
    assert plan.mask.size == plan.mask.total_kept
    save_small(tmp_path, small, plan)
    assert called(load_small(tmp_path, tiny(kind)), PIECES).logits.equal(called(small, PIECES).logits)


def test_an_optimizer_moves_to_a_network_without_a_feed_forward_part():
    model, images = short_transformer(), torch.randn(4, 1, 8, 8)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    model(images).square().sum().backward()
    optimizer.step()
    *_, mask = mask_of(model, "mlp", 0.5, lambda own, x: own(x), images)
    small = tb.shrink(model, mask, optimizer, images)
    assert {id(own) for group in optimizer.param_groups for own in group["params"]} == set(map(id, small.parameters()))
    small(images).square().sum().backward()
    optimizer.step()


def test_heads_and_parts_keep_the_same_share_each_and_all_parts_may_go():
    model, images = short_transformer(4), torch.randn(2, 1, 8, 8)
    _, kept, _ = mask_of(model, "head+mlp", 0.5, lambda own, x: own(x), images, 1)
    assert sum(count for name, count in kept.counts.items() if name != "mlp") == 4
    assert kept.counts["mlp"] == 2
    units, *_ = mask_of(model, "mlp", 0.5, lambda own, x: own(x), images)
    none = units.expand(units.kept({"mlp": range(4)}), dict(model.named_parameters()))
    small = tb.shrink(model, none, example=images)
    assert sum(isinstance(own, SilentLinear) for own in small.modules()) == 8


@pytest.mark.parametrize(
    ("kinds", "says"),
    [((), "give head, neuron or mlp"), (("mlp", "neuron"), "not neuron together with mlp"), (("head", "head"), "once")],
)
def test_kinds_that_cannot_go_together_are_refused(kinds, says):
    with pytest.raises(tb.TombolaError, match=says):
        TransformerParts(kinds)


def test_a_network_without_heads_says_so():
    with pytest.raises(tb.TombolaError, match="no heads that are known"):
        tb.find(tb.testing.toy_task(), tb.method("bert-parts"), progress=False)


def test_the_head_is_what_stands_beside_the_body_or_the_last_layer():
    assert head_parameters(tiny("Roberta"))[0] == "classifier.dense.weight"
    assert head_parameters(nn.Sequential(tiny("Bert"))) == ("0.classifier.weight", "0.classifier.bias")
    assert head_parameters(short_transformer()) == ("head.weight", "head.bias")
    assert "head.weight" not in tb.Prunable(head=False, biases=True)(short_transformer())
