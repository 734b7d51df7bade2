"""Eight bits a weight by ONNX Runtime's quantisation, where activations suit eight bits and where they do not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tombola.shrinking import OnnxNetwork, to_int8, to_onnx


class Attention(nn.Module):
    """Attention with the additive mask of transformers, and one activation far larger than the others."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.head = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 4)
        with torch.no_grad():
            self.mix.weight.mul_(4)
            self.norm.weight[0] = 20

    def forward(self, x):
        queries, keys, values = self.mix(self.norm(x)).chunk(3, -1)
        hidden = torch.full((x.shape[1], x.shape[1]), torch.finfo(x.dtype).min).triu(1)
        return self.head((queries @ keys.transpose(1, 2) / 32**0.5 + hidden).softmax(-1) @ values)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_masks_and_outliers_of_attention_leave_the_outputs_near_those_in_float(tmp_path, kind):
    torch.manual_seed(0)
    network, inputs = Attention().eval(), torch.randn(64, 12, 32)
    to_onnx(network, inputs[:2], tmp_path / "float.onnx")
    to_int8(tmp_path / "float.onnx", tmp_path / "int8.onnx", kind, [inputs[:32]])
    with torch.no_grad():
        outputs, quantised = network(inputs[32:]), OnnxNetwork(tmp_path / "int8.onnx")(inputs[32:])
    assert (quantised - outputs).abs().mean() < 0.15 * outputs.std()
