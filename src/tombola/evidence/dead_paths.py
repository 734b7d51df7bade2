"""Dead paths: kept weights that no signal reaches, or that reach no output."""

from __future__ import annotations

import copy

import torch
from torch import nn

from tombola.scores import Batches, Forward, forward, synflow
from tombola.structure import Prunable
from tombola.tickets import Mask


def effective(model: nn.Module, mask: Mask, batches: Batches, forward: Forward = forward) -> Mask:
    """The part of a mask that lies on a path from an input to an output (Vysogorets & Kempe, JMLR 2023).

    A kept weight off every path takes storage and cannot matter. The flow of SynFlow through such a weight is exactly
    zero. Parameters that SynFlow does not score stay as the mask has them.

    Args:
        model: the network; it is left as it is.
        mask: what is kept of it.
        batches: the first one shows the shape of the inputs.
        forward: how the network is called on inputs.

    Returns:
        A mask within `mask`.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> mask = Mask.of({"0.weight": torch.ones(2, 2) > 0, "2.weight": torch.tensor([[True, False]])})
        >>> effective(model, mask, [(torch.ones(1, 2), torch.zeros(1))])["0.weight"].tolist()
        [[True, True], [False, False]]
    """
    twin = copy.deepcopy(model)
    with torch.no_grad():
        # A bias or a running mean would start a flow of its own behind a dead layer.
        for name, parameter in twin.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        for name, buffer in twin.named_buffers():
            if name.endswith("running_mean"):
                buffer.zero_()
        # Weights of one over the fan-in keep the flow near 1, so that it does not underflow to 0 in a deep network.
        for parameter in Prunable()(twin).values():
            parameter.fill_(1 / max(parameter[0].numel(), 1))
    flow = synflow(twin, batches, mask=mask, forward=forward)
    return mask & Mask.of({name: flow[name] > 0 if name in flow else mask[name] for name in mask})
