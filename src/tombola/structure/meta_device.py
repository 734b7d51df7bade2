"""A copy of a network that has shapes and no values."""

from __future__ import annotations

import copy
from itertools import chain

from torch import nn


def meta_twin(model: nn.Module) -> nn.Module:
    """A copy of a network on the meta device; its tensors are never copied, wherever they lie.

    Args:
        model: the network; it stays as it is.

    Examples:
        >>> meta_twin(nn.Linear(2, 3)).weight.device
        device(type='meta')
    """
    # `deepcopy` takes what it finds here in place of a copy: on a GPU, one would take the model's memory once more.
    shapes = {id(t): t.detach().to("meta") for t in chain(model.parameters(), model.buffers())}
    shapes |= {id(p): nn.Parameter(shapes[id(p)], p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, shapes)
