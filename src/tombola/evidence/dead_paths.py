"""Dead paths: kept weights that no signal reaches, or that reach no output."""

from __future__ import annotations

import copy

import torch
from torch import nn

from tombola.scores import Batches, Forward, forward, synflow
from tombola.structure import Prunable
from tombola.tickets import Mask


def effective(model: nn.Module, mask: Mask, batches: Batches, forward: Forward = forward) -> Mask:
    """The part of a mask that lies on a path from an input to an output.

    A weight is off every path where the flow of SynFlow through it is exactly zero, biases and batch statistics
    aside; what a mask keeps of other parameters counts as it is. What is kept and not effective takes storage but
    cannot matter (Vysogorets & Kempe, 2023).
    """
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        for name, buffer in twin.named_buffers():
            if name.endswith("running_mean"):
                buffer.zero_()
        for parameter in Prunable()(twin).values():
            parameter.fill_(1 / max(parameter[0].numel(), 1))
    flow = synflow(twin, batches, mask=mask, forward=forward)
    return mask & Mask.of({name: flow[name] > 0 if name in flow else mask[name] for name in mask})
