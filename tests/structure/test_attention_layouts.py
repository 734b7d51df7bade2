"""Heads and blocks of attention, whatever its layout: found, cut, and equal to what zeros in their places give."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn

import tombola as tb
from tombola import TombolaError
from tombola.structure import Blocks, PartUnits

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 12}
WORDS = {"vocab_size": 31, "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
GROUPED = SIZES | WORDS | {"num_key_value_heads": 2}
SMALL_T5 = {"vocab_size": 31, "d_model": 16, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_heads": 4}
GPT2 = {"n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 32, "vocab_size": 31, "eos_token_id": None}
DECODERS = {
    "LlamaForCausalLM": GROUPED,
    "Gemma2ForCausalLM": GROUPED | {"head_dim": 4, "sliding_window": 5},
    "GPTNeoXForCausalLM": SIZES | WORDS,
    "GPT2LMHeadModel": GPT2 | {"bos_token_id": 1},
    "T5ForConditionalGeneration": SMALL_T5 | {"decoder_start_token_id": 0, "eos_token_id": None},
}


def decoder(name: str):
    torch.manual_seed(0)
    config = getattr(transformers, name.split("For")[0].removesuffix("LMHeadModel") + "Config")(**DECODERS[name])
    model = getattr(transformers, name)(config).double().eval()
    x = {"input_ids": torch.randint(3, 31, (2, 7))}
    return model, x | ({"decoder_input_ids": torch.randint(3, 31, (2, 5))} if "T5" in name else {})


def logits(model, inputs):
    return model(**inputs).logits


def ticket_of(own, model, probe):
    units, blocks = own.units(model, probe), isinstance(own, Blocks)
    share = units.share(1.0) if blocks else 0.5
    kept = units.choose(
        tb.scores.random(model, seed=1), share, scope="layerwise", within=None, floor=0 if blocks else 1
    )
    return units.expand(kept, dict(model.named_parameters()))


def masked(model, mask):
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name in mask:
            twin.get_parameter(name).mul_(mask[name])
    return twin


KINDS = (PartUnits("head"), PartUnits("neuron"), Blocks(1))
QUICK = [("LlamaForCausalLM", 0), ("Gemma2ForCausalLM", 2), ("GPT2LMHeadModel", 1), ("T5ForConditionalGeneration", 0)]
"""Grouped queries; caches of two kinds of blocks; transposed layers; a table of biases that all blocks share."""
CASES = [
    pytest.param(name, own, id=f"{name}-{own.name}", marks=() if (name, at) in QUICK else pytest.mark.slow)
    for name in DECODERS
    for at, own in enumerate(KINDS)
]


@pytest.mark.parametrize(("name", "own"), CASES)
def test_a_smaller_decoder_generates_what_its_masked_twin_does(name, own):
    model, x = decoder(name)
    mask = ticket_of(own, model, lambda net: logits(net, x))
    small, twin = tb.shrink(model, mask, example=x, forward=logits), masked(model, mask)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert torch.allclose(logits(small, x), logits(twin, x), rtol=1e-9, atol=1e-9)
    for cached in (True, False):
        words = {"input_ids": x["input_ids"], "use_cache": cached, "max_new_tokens": 6, "do_sample": False}
        assert torch.equal(small.generate(**words), twin.generate(**words))


def test_the_configuration_of_a_smaller_decoder_builds_it_again():
    model, x = decoder("LlamaForCausalLM")
    small = tb.shrink(model, ticket_of(PartUnits("head"), model, lambda net: logits(net, x)), example=x, forward=logits)
    assert (small.config.num_attention_heads, small.config.num_key_value_heads, small.config.head_dim) == (2, 1, 4)
    again = type(small)(small.config).double().eval()
    again.load_state_dict(small.state_dict())
    assert torch.equal(logits(again, x), logits(small, x))


class FromInput(nn.Module):
    """Attention that takes the size of a head from the width of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.n_head, self.n_embd = 4, 16
        self.c_attn, self.c_proj = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = (y.view(B, T, self.n_head, C // self.n_head) for y in self.c_attn(x).split(self.n_embd, 2))
        mixed = F.scaled_dot_product_attention(*(y.transpose(1, 2) for y in (q, k, v)))
        return self.c_proj(mixed.transpose(1, 2).reshape(B, T, C))


class Interleaved(nn.Module):
    """Attention whose layers have names of their own and hold each head's three parts side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.into, self.back = 4, nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x):
        q, k, v = self.into(x).unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        return self.back(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class OfTorch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True, add_bias_kv=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


class Talking(Interleaved):
    """Attention whose heads are mixed before the softmax, so that none can go."""

    def __init__(self) -> None:
        super().__init__()
        self.to_qkv, self.to_out, self.talk = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(4, 4)
        del self.into, self.back

    def forward(self, x):
        q, k, v = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = self.talk((q @ k.mT).movedim(1, -1)).movedim(-1, 1).softmax(-1)
        return self.to_out((weights @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("attention", [FromInput, Interleaved, OfTorch])
def test_attention_of_ones_own_is_cut_stored_and_pickled(attention, tmp_path):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 16), attention()).double().eval(), torch.randn(2, 7, 5).double()
    mask = ticket_of(PartUnits("head"), model, lambda net: net(x))
    small, other = tb.shrink(model, mask, example=x), torch.randn(3, 4, 5).double()
    assert small[1](x.new_ones(1, 2, 16)).shape == (1, 2, 16)
    assert sum(p.numel() for p in small.parameters()) < 0.8 * sum(p.numel() for p in model.parameters())
    assert torch.allclose(small(other), masked(model, mask)(other), rtol=1e-9, atol=1e-9)
    assert torch.equal(pickle.loads(pickle.dumps(small))(other), small(other))
    tb.shrinking.save_small(tmp_path, small, tb.shrinking.preview(model, mask, x))
    assert torch.equal(tb.load_small(tmp_path, model).eval()(other), small(other))


def test_heads_that_cannot_go_are_refused_by_name():
    model, x = nn.Sequential(nn.Linear(5, 16), Talking()), torch.randn(2, 7, 5)
    with pytest.raises(TombolaError, match=r"the heads of '1' \(Talking\): with fewer its code fails"):
        PartUnits("head").units(model, lambda net: net(x))
