"""The networks: how each is built, with random parameters, and what it is called on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from networks.torchvision_beside_cpu import import_torchvision

CLASSES, VOCAB = 11, 211


@dataclass(frozen=True)
class Net:
    """How a network is built, what it is called on (batch → inputs), what its targets are like."""

    build: Callable[[], Any]
    inputs: Callable[[int], Any]
    kind: str = "image"  # image, text, causal, seq2seq, dense
    batch: int = 2


def nets() -> dict[str, Net]:
    found: dict[str, Net] = {}
    found |= {f"tv/{name}": own for name, own in torchvision_nets().items()}
    found |= {f"timm/{name}": own for name, own in timm_nets().items()}
    found |= {f"hf/{name}": own for name, own in hf_nets().items()}
    return found


def image(px: int) -> Callable[[int], Any]:
    def inputs(batch: int) -> Any:
        return torch.randn(batch, 3, px, px)

    return inputs


def torchvision_nets() -> dict[str, Net]:
    def tv(name: str, px: int = 64, batch: int = 2, kind: str = "image", **options: Any) -> Net:
        def build() -> Any:
            import_torchvision()
            import torchvision

            where = torchvision.models.segmentation if kind == "dense" else torchvision.models
            return getattr(where, name)(weights=None, num_classes=CLASSES, **options)

        return Net(build, image(px), kind, batch)

    plain = [
        "resnet18",
        "resnet50",
        "wide_resnet50_2",
        "densenet121",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "efficientnet_b0",
        "shufflenet_v2_x1_0",
        "squeezenet1_1",
        "regnet_y_400mf",
        "convnext_tiny",
        "alexnet",
        "swin_t",
    ]
    found = {name: tv(name) for name in plain}
    found["googlenet"] = tv("googlenet", init_weights=False)
    found["googlenet_noaux"] = tv("googlenet", aux_logits=False, init_weights=False)
    found["inception_v3"] = tv("inception_v3", 299, 2, init_weights=False)
    found["vit_b_16"] = tv("vit_b_16", image_size=64)
    segmented = {"weights_backbone": None}
    found["fcn_resnet50"] = tv("fcn_resnet50", 64, 2, "dense", **segmented)
    found["deeplabv3_resnet50"] = tv("deeplabv3_resnet50", 64, 2, "dense", **segmented)
    found["fasterrcnn_mobilenet_v3_large_320_fpn"] = detection("fasterrcnn_mobilenet_v3_large_320_fpn")
    return found


def detection(name: str) -> Net:
    def build() -> Any:
        import_torchvision()
        import torchvision

        return getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None, num_classes=CLASSES)

    return Net(build, image(96), "detection", 2)


def timm_nets() -> dict[str, Net]:
    def tm(name: str, px: int = 64, batch: int = 2, **options: Any) -> Net:
        def build() -> Any:
            import_torchvision()
            import timm

            return timm.create_model(name, num_classes=CLASSES, **options)

        return Net(build, image(px), "image", batch)

    plain = [
        "test_resnet",
        "test_efficientnet",
        "test_convnext",
        "resnet18",
        "resnet50",
        "resnetv2_50",
        "efficientnet_b0",
        "mobilenetv3_small_100",
        "mobilenetv4_conv_small",
        "mobilenetv4_hybrid_medium",
        "convnext_atto",
        "convnextv2_atto",
        "ghostnet_100",
        "hrnet_w18_small",
        "nfnet_f0",
        "eca_nfnet_l0",
        "repvgg_a0",
        "edgenext_xx_small",
        "regnety_002",
        "darknet53",
        "densenet121",
        "tf_efficientnet_b0",
        "poolformer_s12",
    ]
    found = {name: tm(name) for name in plain}
    sized = "test_vit vit_tiny_patch16_224 deit_tiny_distilled_patch16_224 mixer_s16_224 gmlp_s16_224 "
    sized += "beit_base_patch16_224 eva02_tiny_patch14_224"
    for name in sized.split():
        px = 70 if "patch14" in name else 64
        found[name] = tm(name, px, img_size=px)
    found["swin_tiny_patch4_window7_224"] = tm("swin_tiny_patch4_window7_224", 64, img_size=64, window_size=4)
    found["levit_128s"] = tm("levit_128s", 224, 2)
    return found


def hf_nets() -> dict[str, Net]:
    def tokens(batch: int) -> Any:
        return {"input_ids": torch.randint(3, VOCAB, (batch, 12))}

    def both(batch: int) -> Any:
        return tokens(batch) | {"decoder_input_ids": torch.randint(3, VOCAB, (batch, 9))}

    def speech(batch: int) -> Any:
        return {"input_features": torch.randn(batch, 16, 40), "decoder_input_ids": torch.randint(3, VOCAB, (batch, 9))}

    def wave(batch: int) -> Any:
        return {"input_values": torch.randn(batch, 2000)}

    def hf(kind: str, model: str, inputs: Any = tokens, config: str = "", **options: Any) -> Net:
        def build() -> Any:
            import_torchvision()
            import transformers

            name = config or model.split("For")[0].replace("LMHeadModel", "") + "Config"
            made = getattr(transformers, name)(**options)
            if kind in ("text", "image"):
                made.num_labels = CLASSES
            return getattr(transformers, model)(made)

        return Net(build, inputs, kind)

    bert = {
        "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128,
        "vocab_size": VOCAB, "max_position_embeddings": 40, "pad_token_id": 0,
    }  # fmt: skip
    llama = bert | {"num_key_value_heads": 4}
    vit = {
        "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128,
        "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    bart = {
        "vocab_size": VOCAB, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "max_position_embeddings": 40,
    }  # fmt: skip
    px32 = image(32)
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return {
        "bert": hf("text", "BertForSequenceClassification", **bert),
        "distilbert": hf(
            "text", "DistilBertForSequenceClassification", dim=64, n_layers=3, n_heads=4, hidden_dim=128,
            vocab_size=VOCAB, max_position_embeddings=40,
        ),
        "roberta": hf("text", "RobertaForSequenceClassification", **bert),
        "albert": hf("text", "AlbertForSequenceClassification", embedding_size=32, **bert),
        "deberta_v2": hf(
            "text", "DebertaV2ForSequenceClassification", relative_attention=True, pos_att_type=["p2c", "c2p"], **bert
        ),
        "modernbert": hf("text", "ModernBertForSequenceClassification", **special | bert),
        "xlm_roberta": hf("text", "XLMRobertaForSequenceClassification", **bert),
        "bert_mlm": hf("causal", "BertForMaskedLM", **bert),
        "gpt2": hf(
            "causal", "GPT2LMHeadModel", n_embd=64, n_layer=3, n_head=4, vocab_size=VOCAB, n_positions=40, **special
        ),
        "opt": hf(
            "causal", "OPTForCausalLM", hidden_size=64, num_hidden_layers=3, num_attention_heads=4, ffn_dim=128,
            vocab_size=VOCAB, max_position_embeddings=40, word_embed_proj_dim=64, **special,
        ),
        "llama": hf("causal", "LlamaForCausalLM", **llama),
        "llama_gqa": hf("causal", "LlamaForCausalLM", **llama | {"num_key_value_heads": 2}),
        "qwen2": hf("causal", "Qwen2ForCausalLM", **llama | {"num_key_value_heads": 2}),
        "mistral": hf("causal", "MistralForCausalLM", **llama | {"num_key_value_heads": 2}),
        "gpt_neox": hf("causal", "GPTNeoXForCausalLM", **bert),
        "bloom": hf("causal", "BloomForCausalLM", hidden_size=64, n_layer=3, n_head=4, vocab_size=VOCAB, **special),
        "t5": hf(
            "seq2seq", "T5ForConditionalGeneration", both, vocab_size=VOCAB, d_model=64, d_kv=16, d_ff=128,
            num_layers=2, num_heads=4, decoder_start_token_id=0,
        ),
        "whisper": hf(
            "seq2seq", "WhisperForConditionalGeneration", speech, num_mel_bins=16, max_source_positions=20,
            max_target_positions=40, decoder_start_token_id=1,
            **{k: v for k, v in bart.items() if k != "max_position_embeddings"} | special,
        ),
        "vit": hf("image", "ViTForImageClassification", px32, **vit),
        "deit": hf("image", "DeiTForImageClassification", px32, **vit),
        "swin": hf(
            "image", "SwinForImageClassification", px32, image_size=32, patch_size=2, embed_dim=24, depths=[2, 2],
            num_heads=[2, 4], window_size=4,
        ),
        "convnext": hf(
            "image", "ConvNextForImageClassification", px32, config="ConvNextConfig", hidden_sizes=[16, 32, 64, 128],
            depths=[2, 2, 2, 2], image_size=32,
        ),
        "resnet": hf(
            "image", "ResNetForImageClassification", px32, config="ResNetConfig", embedding_size=16,
            hidden_sizes=[32, 64, 96, 128], depths=[2, 2, 2, 2], layer_type="basic",
        ),
        "mobilevit": hf("image", "MobileViTForImageClassification", image(64), config="MobileViTConfig", image_size=64),
        "wav2vec2": hf(
            "text", "Wav2Vec2ForSequenceClassification", wave, hidden_size=64, num_hidden_layers=2,
            num_attention_heads=4, intermediate_size=128, conv_dim=[32] * 7, num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4, mask_time_prob=0.0, vocab_size=VOCAB, classifier_proj_size=32,
        ),
    }  # fmt: skip
