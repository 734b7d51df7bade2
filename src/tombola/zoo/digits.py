"""scikit-learn's handwritten digits: 1,797 images of 8×8 that come with the package."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def digits() -> dict[str, tuple[Tensor, Tensor]]:
    """1,438 training and 359 test images of shape (1, 8, 8), normalised by the training images.

    The split is fixed, with 80 % of each digit in training.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    inputs = torch.tensor(images[order], dtype=torch.float32).reshape(-1, 1, 8, 8)
    targets = torch.tensor(labels[order], dtype=torch.int64)
    training = torch.zeros(len(targets), dtype=torch.bool)
    for label in range(10):
        members = (targets == label).nonzero().flatten()
        training[members[: round(0.8 * len(members))]] = True
    inputs = (inputs - inputs[training].mean()) / inputs[training].std()
    return {"train": (inputs[training], targets[training]), "test": (inputs[~training], targets[~training])}
