"""A vision transformer for small images (Dosovitskiy et al., ICLR 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola.zoo.input_shapes import Shape, image_sides, scaled

HEAD_SIZE = 16
TOKENS_A_SIDE = 8


class Attention(nn.Module):
    """Multi-head self-attention.

    Args:
        size: of a token.
        heads: how many heads of 16 values; `forward` takes their number from the width of the projections, so that it
            still fits once heads have been removed.
    """

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.head_size = HEAD_SIZE
        width = heads * HEAD_SIZE
        self.query, self.key, self.value = (nn.Linear(size, width) for _ in range(3))
        self.out = nn.Linear(width, size)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            layer(tokens).unflatten(-1, (-1, self.head_size)).transpose(-2, -3)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(-2, -3).flatten(-2))


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them.

    Args:
        size: of a token.
        hidden: units between the layers.
    """

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(size, hidden), nn.Linear(hidden, size)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class Layer(nn.Module):
    """Attention and feed-forward part, each behind a layer norm and beside a shortcut.

    Args:
        size: of a token.
        heads: of the attention.
    """

    branch = ("attention.out", "mlp.fc2")

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(size), Attention(size, heads)
        self.norm2, self.mlp = nn.LayerNorm(size), FeedForward(size, 4 * size)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class VisionTransformer(nn.Module):
    """Patches as tokens with a learned position each, encoder layers, and a classifier of the mean over tokens.

    Args:
        shape: of one image, (channels, height, width).
        classes: how many classes it tells apart.
        heads: of each layer; a token has 16 values for each.
        depth: how many layers.
    """

    def __init__(self, shape: Shape, classes: int, heads: int, depth: int) -> None:
        super().__init__()
        channels, height, width = image_sides("vit-tiny", shape, 2)
        patch, size = max(2, -(-max(height, width) // TOKENS_A_SIDE)), heads * HEAD_SIZE
        self.patches = nn.Conv2d(channels, size, patch, stride=patch)
        self.positions = nn.Parameter(torch.randn((height // patch) * (width // patch), size) * 0.02)
        self.layers = nn.Sequential(*(Layer(size, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(size), nn.Linear(size, classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.layers(tokens)).mean(1))


def vit_tiny(input_shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """Six layers with six heads of 16 values, so tokens of 96, on at most 8×8 patches of at least 2×2 pixels.

    Args:
        input_shape: of one sample, (channels, height, width).
        classes: how many classes the network tells apart.
        width: heads, as a multiple of the network's own.

    Raises:
        TombolaError: if the inputs are no images, or smaller than 2×2.
    """
    return VisionTransformer(input_shape, classes, scaled(6, width), 6)
