"""A smaller network in a folder: the usual loader opens it, or it is built again by name, and no file chooses code."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import tombola as tb
from tombola import TombolaError, zoo
from tombola.nested import tensors_in
from tombola.shrinking import Origin, fresh_opening, save_small, saving
from tombola.structure import PartUnits, TransformerParts

transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
SIZES |= {"vocab_size": 60, "max_position_embeddings": 20, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
VIT = {name: SIZES[name] for name in list(SIZES)[:4]} | {"image_size": 8, "patch_size": 4, "num_labels": 3}
GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": 60, "n_positions": 20, "bos_token_id": 1}
T5 = {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 4}
WORDS = {"input_ids": torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])}
INPUTS = {"ViT": {"pixel_values": torch.linspace(-1, 1, 384).reshape(2, 3, 8, 8)}}
INPUTS["T5"] = WORDS | {"decoder_input_ids": torch.tensor([[0, 3], [0, 4]])}
CLASSES = {
    "Bert": ("BertForSequenceClassification", SIZES),
    "Llama": ("LlamaForCausalLM", SIZES | {"num_key_value_heads": 2}),
    "GPT2": ("GPT2LMHeadModel", GPT2 | {"eos_token_id": 2}),
    "ViT": ("ViTForImageClassification", VIT),
    "T5": ("T5ForConditionalGeneration", T5 | {"decoder_start_token_id": 0}),
}


def network(family: str) -> nn.Module:
    torch.manual_seed(0)
    kind, sizes = CLASSES[family]
    return getattr(transformers, kind)(getattr(transformers, f"{family}Config")(**sizes)).eval()


def call(model: nn.Module, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        return tensors_in(model(**inputs))


def shrunk(model: nn.Module, granularity, inputs, scope="layerwise") -> tuple[nn.Module, tb.shrinking.Plan]:
    """A smaller network with other weights than the whole one, as after training."""
    units = granularity.units(model, lambda own: own(**inputs))
    scores, density = tb.scores.random(model), 0.5
    if isinstance(granularity, tb.structure.Blocks):
        scores, density, scope = tb.scores.magnitude(model), units.share(1), "global"
    kept = units.choose(scores, density, scope=scope, within=None, floor=0 if scope == "global" else 1)
    mask = units.expand(kept, dict(model.named_parameters()))
    small = tb.shrink(model, mask, example=inputs)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return small.eval(), tb.shrinking.preview(model, mask, inputs)


def opened_here(folder, kind, called, outputs) -> None:
    """What the fresh process does, in this one, which is faster."""
    found, told = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not any(told.values())
    gaps = [float((a - b).abs().max()) for a, b in zip(tensors_in(outputs), call(found, called), strict=True)]
    assert max(gaps) < 1e-5


NEURONS, HEADS, BLOCK = PartUnits("neuron"), PartUnits("head"), tb.structure.Blocks(1, least=1)
SAID = [
    pytest.param("Bert", NEURONS, "layerwise", {"intermediate_size": 20}, marks=pytest.mark.slow),
    ("Bert", NEURONS, "global", {}),
    ("Llama", TransformerParts(("head", "neuron")), "layerwise", {"num_attention_heads": 2, "num_key_value_heads": 1}),
    pytest.param("Llama", BLOCK, "global", {"num_hidden_layers": 2}, marks=pytest.mark.slow),
    pytest.param("GPT2", NEURONS, "layerwise", {"n_inner": 64}, marks=pytest.mark.slow),
    ("ViT", HEADS, "layerwise", {"num_attention_heads": 2}),
    pytest.param("T5", NEURONS, "global", {}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("family", "granularity", "scope", "fields"), SAID, ids=lambda own: getattr(own, "name", own))
def test_a_shape_that_the_configuration_can_say_is_opened_by_from_pretrained(
    family, granularity, scope, fields, tmp_path, monkeypatch
):
    monkeypatch.setattr(saving, "check_opens", opened_here)
    model, inputs = network(family), INPUTS.get(family, WORDS)
    small, plan = shrunk(model, granularity, inputs, scope)
    saved = save_small(tmp_path, small, plan, example=inputs)
    assert (saved.opener, saved.why) == ("transformers", "")
    assert {path.name for path in tmp_path.iterdir()} >= {"config.json", "model.safetensors", "network.json"}
    said = json.loads((tmp_path / "config.json").read_text())
    assert {name: said[name] for name in fields} == fields
    expected = call(small, inputs)
    for again in (tb.load_small(tmp_path), getattr(transformers, saved.network).from_pretrained(tmp_path)):
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(call(again, inputs), expected, strict=True))
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in small.parameters()) + saved.zeros


@pytest.mark.parametrize(
    ("family", "granularity"), [("Bert", HEADS), pytest.param("GPT2", HEADS, marks=pytest.mark.slow)]
)
def test_a_shape_that_it_cannot_say_is_cut_out_of_the_whole_network_again(family, granularity, tmp_path):
    model = network(family)
    small, plan = shrunk(model, granularity, WORDS)
    saved = save_small(tmp_path, small, plan, example=WORDS)
    assert saved.opener == "name"
    assert f"{family}Config" in saved.why
    again = tb.load_small(tmp_path)
    assert all(map(torch.equal, call(again, WORDS), call(small, WORDS)))
    assert not again.training


class Reader(nn.Module):
    """A user's class around a network of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = network("Bert")

    def forward(self, pieces: torch.Tensor) -> torch.Tensor:
        return self.encoder(input_ids=pieces).logits


def reader() -> tuple[Reader, nn.Module, tb.shrinking.Plan, torch.Tensor]:
    model, pieces = Reader().eval(), WORDS["input_ids"]
    units = NEURONS.units(model, lambda own: own(pieces))
    kept = units.choose(tb.scores.random(model), 0.5, scope="layerwise", within=None, floor=1)
    mask = units.expand(kept, dict(model.named_parameters()))
    return model, tb.shrink(model, mask, example=pieces).eval(), tb.shrinking.preview(model, mask, pieces), pieces


@pytest.mark.slow
def test_a_fresh_process_opens_what_was_saved_out_of_a_class_of_ones_own(tmp_path):
    model, small, plan, pieces = reader()
    assert save_small(tmp_path, small, plan, example=pieces).code.startswith("transformers.BertForSequence")
    program = (
        "import sys, torch, transformers as t; m = t.AutoModelForSequenceClassification.from_pretrained(sys.argv[1])"
    )
    program += f"; print(m(torch.tensor({pieces.tolist()})).logits.tolist())"
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert torch.allclose(torch.tensor(json.loads(done.stdout)), small(pieces), atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(tb.load_small(tmp_path, model)(pieces), small(pieces), atol=1e-6)
    called, outputs = fresh_opening.call_of(small, small.encoder, lambda own: own(pieces))
    fresh_opening.check_opens(tmp_path, "BertForSequenceClassification", called, outputs)
    said = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(said | {"intermediate_size": 24}))
    with pytest.raises(TombolaError, match=r"transformers does not open it|mismatched keys"):
        fresh_opening.check_opens(tmp_path, "BertForSequenceClassification", called, outputs)
    (tmp_path / "config.json").write_text(json.dumps(said | {"hidden_act": "relu"}))
    with pytest.raises(TombolaError, match="gives other outputs"):
        fresh_opening.check_opens(tmp_path, "BertForSequenceClassification", called, outputs)
    (tmp_path / "config.json").write_text(json.dumps(said | {"num_hidden_layers": 4}))
    with pytest.raises(TombolaError, match="opens it with missing keys"):
        fresh_opening.check_opens(tmp_path, "BertForSequenceClassification", called, outputs)


def lenet(*_: object) -> tuple[nn.Module, nn.Module, tb.shrinking.Plan, torch.Tensor]:
    torch.manual_seed(0)
    model, x = zoo.model("lenet5", (1, 28, 28), 10)().eval(), torch.randn(2, 1, 28, 28)
    units = tb.Channels().units(model, lambda own: own(x))
    kept = units.choose(tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1)
    mask = units.expand(kept, dict(model.named_parameters()))
    return model, tb.shrink(model, mask, example=x).eval(), tb.shrinking.preview(model, mask, x), x


LENET = Origin("tombola", "lenet5", {"input_shape": (1, 28, 28), "classes": 10, "width": 1.0})


def test_a_network_of_the_zoo_is_built_again_by_its_name_and_ones_own_by_its_class(tmp_path):
    _, small, plan, x = lenet()
    assert save_small(tmp_path / "named", small, plan, origin=LENET).opener == "name"
    assert torch.equal(tb.load_small(tmp_path / "named")(x), small(x))
    assert save_small(tmp_path / "own", small, plan).opener == "class"
    with pytest.raises(TombolaError, match="a class of somebody's own"):
        tb.load_small(tmp_path / "own")
    again = tb.load_small(tmp_path / "own", zoo.model("lenet5", (1, 28, 28), 10)().train())
    assert not again.training
    assert torch.equal(again(x), small(x))
    with pytest.raises(TombolaError, match="model gave a dict"):
        tb.load_small(tmp_path / "own", dict)


def test_an_origin_that_builds_another_network_is_refused(tmp_path):
    _, small, plan, _ = lenet()
    other = Origin("tombola", "lenet5", {"input_shape": (1, 20, 20), "classes": 10})
    with pytest.raises(TombolaError, match="another network than the one that was shrunk"):
        save_small(tmp_path, small, plan, origin=other)
    assert not list(tmp_path.iterdir())


def test_folders_of_the_first_format_are_read(tmp_path):
    model, small, plan, x = lenet()
    save_small(tmp_path, small, plan)
    said = json.loads((tmp_path / "network.json").read_text())
    first = {name: said[name] for name in said if name not in ("file", "origin", "inside")} | {"format": 1}
    (tmp_path / "network.json").write_text(json.dumps(first))
    assert torch.equal(tb.load_small(tmp_path, model).eval()(x), small(x))


BERT = {"model_type": "bert"} | SIZES
HOSTILE = [
    ({"library": "os", "name": "system"}, "there is no library 'os'"),
    ({"library": "tombola", "name": "os:system"}, "there is no model"),
    ({"library": "transformers", "name": "pipeline", "arguments": BERT}, "has no network 'pipeline'"),
    ({"library": "transformers", "name": "BertModel", "arguments": {"auto_map": {"AutoModel": "x.Y"}}}, "'auto_map'"),
    (
        {"library": "transformers", "name": "BertModel", "arguments": BERT | {"quantization_config": {"a": 1}}},
        "'quantization_config'",
    ),
    ({"library": "transformers", "name": "BertModel", "arguments": BERT | {"num_hidden_layers": 10**6}}, "more than"),
    ({"library": "transformers", "name": "BertModel", "arguments": BERT | {"vocab_size": 2**30}}, "machine's memory"),
    ({"library": "transformers", "name": "BertModel", "arguments": BERT | {"model_type": "gpt2"}}, "is one of 'gpt2'"),
    ({"library": "transformers", "name": "BertModel", "arguments": BERT | {"hidden_size": "x"}}, "refused|not build"),
    ({"library": "timm", "name": "resnet18", "arguments": {"pretrained": True}}, "is not built with 'pretrained'"),
    (
        {"library": "torchvision", "name": "resnet18", "arguments": {"weights": "DEFAULT"}},
        "is not built with 'weights'",
    ),
    ({"library": "tombola", "name": "lenet5", "arguments": {"input_shape": [1, 28, 28], "width": 1e300}}, "'width' is"),
    ({"library": "tombola", "name": "lenet5", "arguments": {"input_shape": [1, 28, 28], "width": 1e8}}, "memory|build"),
]


@pytest.mark.parametrize(("origin", "says"), HOSTILE, ids=[says for _, says in HOSTILE])
def test_what_a_folder_says_chooses_no_code_and_builds_nothing_absurd(origin, says, tmp_path):
    _, small, plan, _ = lenet()
    save_small(tmp_path, small, plan, origin=LENET)
    said = json.loads((tmp_path / "network.json").read_text())
    said["origin"] = {"arguments": {}} | origin
    (tmp_path / "network.json").write_text(json.dumps(said))
    with pytest.raises(TombolaError, match=says):
        tb.load_small(tmp_path)


@pytest.mark.parametrize("file", ["../weights.safetensors", "config.json", 3])
def test_a_description_names_no_other_file(file, tmp_path):
    model, small, plan, _ = lenet()
    save_small(tmp_path, small, plan)
    said = json.loads((tmp_path / "network.json").read_text())
    (tmp_path / "network.json").write_text(json.dumps(said | {"file": file}))
    with pytest.raises(TombolaError, match="does not name the file of the weights"):
        tb.load_small(tmp_path, model)


@pytest.mark.slow
def test_a_folder_that_is_written_again_keeps_no_weights_of_before(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "check_opens", opened_here)
    small, plan = shrunk(network("Bert"), NEURONS, WORDS)
    save_small(tmp_path, small, plan, example=WORDS)
    _, other, cuts, _ = lenet()
    save_small(tmp_path, other, cuts, origin=LENET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["network.json", "weights.safetensors"]
