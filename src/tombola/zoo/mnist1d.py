"""MNIST-1D (Greydanus & Kobak, ICML 2024): ten one-dimensional digits, generated here.

The numbers equal those of the public generator at its defaults (5,000 samples, seed 42).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

DIGITS = np.array(
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
)
SAMPLES, TRAINING, LENGTH = 5000, 4000, 40
SHORTEST_PADDING, LONGEST_PADDING = 36, 60
CORRELATED_NOISE, WHITE_NOISE = 0.25, 0.02
SCALING, SHEAR, SHIFTS = 0.4, 0.75, 48


def mnist1d() -> dict[str, tuple[Tensor, Tensor]]:
    """4,000 training and 1,000 test signals of shape (1, 40), standardised over all samples.

    Examples:
        >>> inputs, targets = mnist1d()["test"]
        >>> inputs.shape, targets.shape
        (torch.Size([1000, 1, 40]), torch.Size([1000]))
    """
    # RandomState and the order of its draws are the public generator's; both decide the numbers.
    rng = np.random.RandomState(42)
    shapes = (DIGITS - DIGITS.mean(1, keepdims=True)) / DIGITS.std(1, keepdims=True)
    shapes = (shapes - shapes[:, :1]) / 6
    labels = np.repeat(np.arange(10), SAMPLES // 10)
    signals = np.stack([_distorted(shapes[label], rng) for label in labels])
    order = rng.permutation(SAMPLES)
    signals = (signals - signals.mean()) / signals.std()
    inputs = torch.tensor(signals[order], dtype=torch.float32).unsqueeze(1)
    targets = torch.tensor(labels[order], dtype=torch.int64)
    return {"train": (inputs[:TRAINING], targets[:TRAINING]), "test": (inputs[TRAINING:], targets[TRAINING:])}


def _distorted(digit: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """One sample: padded and stretched, scaled, shifted in a circle, with noise added, sheared and shortened."""
    from scipy.ndimage import gaussian_filter

    padding = SHORTEST_PADDING + int(rng.rand() * (LONGEST_PADDING - SHORTEST_PADDING + 1))
    signal = _resampled(np.concatenate([digit + 1e-8, np.zeros(padding)]), len(digit) + LONGEST_PADDING)
    signal = signal * (1 + SCALING * (rng.rand() - 0.5))
    signal = np.roll(signal, rng.choice(SHIFTS))
    background = gaussian_filter(CORRELATED_NOISE * rng.randn(len(signal)), 2)
    signal = np.where(signal != 0, signal, background) + WHITE_NOISE * rng.randn(len(signal))
    signal = signal - SHEAR * (rng.rand() - 0.5) * np.linspace(-0.5, 0.5, len(signal))
    return _resampled(signal, LENGTH)


def _resampled(signal: np.ndarray, length: int) -> np.ndarray:
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(signal)), signal)
