"""Embeddings whose table the last layer multiplies with too: in both places one parameter, with the same columns."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn

import tombola as tb
from tombola.nested import tensors_in
from tombola.shrinking import Plan, load_small, save_small, saving
from tombola.structure import AllInDouble, ChannelsAndHeads, PartialNorm
from tombola.tickets import Mask

WIDTH, WORDS = 12, 9
STREAMS = tb.Channels(streams=True)


class Tied(nn.Module):
    """A small language model: words and places, a block, and the words' table as the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(7, WIDTH)
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH)
        self.last, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS)
        self.head.weight = self.words.weight

    def forward(self, x):
        return self.head(self.stream(self.words(x)))

    def stream(self, x):
        x = x + self.places(torch.arange(x.shape[1], device=x.device))
        return self.last(x + self.fc2(F.gelu(self.fc1(self.norm(x)))))


class HeadFirst(Tied):
    """The table is called after the last layer, which is held before the embedding."""

    def __init__(self) -> None:
        super().__init__()
        words = self.words
        del self.words
        self.words = words


class Functional(Tied):
    """No layer holds the table beside the embedding."""

    def __init__(self) -> None:
        super().__init__()
        del self.head

    def forward(self, x):
        return self.stream(self.words(x)) @ self.words.weight.t()


class Normalised(Tied):
    """The length of a row counts all of its columns."""

    def forward(self, x):
        return self.stream(self.words(x)) @ F.normalize(self.words.weight, dim=-1).t()


class Unfed(Tied):
    """The last layer takes a constant too, all places of which have to stay."""

    def forward(self, x):
        return self.head(self.stream(self.words(x))) + self.head(
            torch.ones(WIDTH, device=x.device, dtype=self.norm.weight.dtype)
        )


def numbers(count: int) -> torch.Tensor:
    return torch.randint(WORDS, (count, 7))


def made(build) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network whose norms all differ from new ones, an example, and other inputs."""
    torch.manual_seed(0)
    model = stirred(build())
    return model, numbers(2), numbers(3)


def stirred(model):
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def plain(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model(x)


def half(model: nn.Module, x, call=plain, granularity=STREAMS, density: float = 0.5) -> Mask:
    units = granularity.units(model, lambda network: call(network, x))
    kept = units.choose(tb.scores.magnitude(model), density, scope="layerwise", within=None, floor=1)
    return units.expand(kept, dict(model.named_parameters()))


def stepped(model: nn.Module, mask: Mask, optimizer: torch.optim.Optimizer, x, call=plain) -> nn.Module:
    with tb.attach(mask, model, optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            call(model, x).square().mean().backward()
            optimizer.step()
    return model


def gap(one: nn.Module, other: nn.Module, x, call=plain) -> float:
    with AllInDouble(), torch.no_grad():
        outputs = [call(copy.deepcopy(own).double().eval(), x) for own in (one, other)]
    return float((outputs[0] - outputs[1]).abs().max())


def widths_of(model: nn.Module) -> set[int]:
    return {len(own.weight) for own in model.modules() if isinstance(own, PartialNorm)}


@pytest.mark.parametrize("build", [Tied, HeadFirst, Functional])
def test_a_tied_table_is_cut_once_and_stays_tied(build, tmp_path):
    model, x, others = made(build)
    mask = half(model, x)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    stepped(model, mask, optimizer, x)
    twin, its = copy.deepcopy((model, optimizer))
    plan = tb.shrinking.preview(model, mask, x)
    small = tb.shrink(model, mask, optimizer, x)
    assert plan.mask == Mask({})
    assert widths_of(small) == {WIDTH // 2} == {small.words.embedding_dim, small.places.embedding_dim}
    assert small.words.weight.shape == (WORDS, WIDTH // 2)
    assert gap(twin, small, others) < 1e-12
    assert [id(own) for own in optimizer.param_groups[0]["params"]] == [id(own) for own in small.parameters()]
    assert len(optimizer.state) == len(list(small.parameters()))
    assert optimizer.state[small.words.weight]["exp_avg"].shape == (WORDS, WIDTH // 2)
    for network, own in ((twin.double(), its), (small.double(), optimizer)):
        own.load_state_dict(own.state_dict())
        stepped(network, mask if network is twin else Mask({}), own, x)
    assert gap(twin, small, others) < 1e-12
    save_small(tmp_path, small.float(), plan)
    again = load_small(tmp_path, build)
    assert gap(again, small, others) == 0
    for network in (small, again):
        assert build is Functional or network.head.weight is network.words.weight
        assert build is Functional or network.head.in_features == WIDTH // 2
    again.load_state_dict(small.state_dict())


@pytest.mark.parametrize("build", [Tied, Functional])
def test_a_tied_table_stays_whole_unless_streams_are_asked_for(build):
    model, x, _ = made(build)
    assert set(tb.Channels().units(model, lambda network: network(x)).families.sizes.values()) == {16}


@pytest.mark.parametrize("build", [Normalised, Unfed])
def test_a_table_stays_whole_where_all_of_its_columns_are_needed(build):
    model, x, _ = made(build)
    units = STREAMS.units(model, lambda network: network(x))
    assert set(units.families.sizes.values()) == {16}
    assert not widths_of(tb.shrink(model, half(model, x), example=x))


def test_a_table_that_another_layer_holds_too_is_none():
    model = Tied()
    assert tb.structure.layers.tables(model) == {"words.weight", "places.weight"}
    model.other = nn.Bilinear(1, WIDTH, 1)
    model.other.weight = model.words.weight
    assert tb.structure.layers.tables(model) == {"places.weight"}


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SIZES |= {"vocab_size": 60, "max_position_embeddings": 40, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 60, "n_positions": 40, "bos_token_id": 1}
OPT = SIZES | {"ffn_dim": 48, "word_embed_proj_dim": 32}
T5 = {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 4}
MODELS = {
    "BertForMaskedLM": ("Bert", SIZES),
    "GPT2LMHeadModel": ("GPT2", GPT2 | {"eos_token_id": 2, "pad_token_id": 0}),
    "LlamaForCausalLM": ("Llama", SIZES | {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "OPTForCausalLM": ("OPT", OPT),
    "BloomForCausalLM": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 60, "pad_token_id": 0}),
    "T5ForConditionalGeneration": ("T5", T5 | {"decoder_start_token_id": 0, "tie_word_embeddings": True}),
}


def transformer(name: str):
    """A network in evaluation mode, and inputs."""
    torch.manual_seed(0)
    family, sizes = MODELS[name]
    model = stirred(getattr(transformers, name)(getattr(transformers, f"{family}Config")(**sizes)))
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return model, inputs | ({"decoder_input_ids": torch.tensor([[0, 3], [0, 4]])} if family == "T5" else {})


def logits(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs).logits


def is_tied(model) -> bool:
    return model.get_input_embeddings().weight is model.get_output_embeddings().weight


QUICK = (("BertForMaskedLM", "channel:streams"), ("LlamaForCausalLM", "channel:streams+head"))
KINDS = {own.name: own for own in (STREAMS, ChannelsAndHeads(streams=True))}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=() if (name, kind) in (*QUICK, ("GPT2LMHeadModel", kind)) else pytest.mark.slow)
        for name in MODELS
        for kind in KINDS
        if (name, kind) != ("BloomForCausalLM", "channel:streams+head")  # whose heads have no known layout
    ],
)
def test_a_transformer_with_tied_embeddings_loses_half_of_its_stream(name, kind, tmp_path):
    model, x = transformer(name)
    mask = half(model, x, logits, KINDS[kind])
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    stepped(model, mask, optimizer, x, logits)
    twin, its = copy.deepcopy((model, optimizer))
    plan = tb.shrinking.preview(model, mask, x, logits)
    small = tb.shrink(model, mask, optimizer, x, logits)
    assert plan.mask == Mask({})
    assert widths_of(small) == {16} == {small.get_input_embeddings().embedding_dim}
    assert is_tied(small)
    assert small.config.tie_word_embeddings
    assert gap(twin, small, x, logits) < 1e-12
    with AllInDouble():
        for network, own in ((twin.double(), its), (small.double(), optimizer)):
            own.load_state_dict(own.state_dict())
            stepped(network, mask if network is twin else Mask({}), own, x, logits)
        if name != "BertForMaskedLM":
            check_generation(twin.eval(), small.eval(), x)
    assert gap(twin, small, x, logits) < 1e-12
    assert is_tied(small)
    assert save_small(tmp_path, small.float(), plan, example=x, forward=logits).opener == "name"
    again = load_small(tmp_path)
    assert is_tied(again)
    assert gap(again, small, x, logits) == 0


def check_generation(twin, small, x) -> None:
    options = {"max_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True, "output_scores": True}
    for cached in (True, False):
        one, other = (own.generate(**x, **options, use_cache=cached) for own in (twin, small))
        assert torch.equal(one.sequences, other.sequences)
        assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(one.scores, other.scores, strict=True))


@pytest.mark.parametrize("name", ["BertForMaskedLM", pytest.param("LlamaForCausalLM", marks=pytest.mark.slow)])
def test_where_zeros_can_come_back_from_pretrained_opens_a_tied_network(name, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "check_opens", lambda *_: None)
    model, x = transformer(name)
    small, plan = less_a_channel(model, x)
    saved = save_small(tmp_path, small, plan, example=x)
    assert saved.opener == "transformers"
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"]
    again = getattr(transformers, name).from_pretrained(tmp_path)
    assert is_tied(again)
    with torch.no_grad():
        pairs = zip(tensors_in(again(**x)), tensors_in(small(**x)), strict=True)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)


def less_a_channel(model: nn.Module, x) -> tuple[nn.Module, Plan]:
    units = STREAMS.units(model, lambda network: logits(network, x))
    stream = max(units.families.members, key=lambda name: len(units.families.members[name]))
    mask = units.expand(units.kept({stream: (3,)}), dict(model.named_parameters()))
    return tb.shrink(model, mask, example=x).eval(), tb.shrinking.preview(model, mask, x)
