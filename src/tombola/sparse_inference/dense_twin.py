"""A program with all its zeros, in PyTorch: what it is compared with, and what is exported."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola.sparse_inference.program import Program, Step


class DenseTwin(nn.Module):
    """Computes what a program does, with dense convolutions.

    Args:
        program: what is computed.
        outputs: the shape of a sample that comes out.
    """

    def __init__(self, program: Program, outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.program, self.outputs = program, outputs
        for number, step in enumerate(program.steps):
            inputs = program.shapes[step.source].channels
            for name, array in (
                ("weight", None if step.kept is None else step.kept.dense(inputs)),
                ("factors", step.factors),
                ("bias", step.bias),
            ):
                if array is not None:
                    self.register_buffer(f"{name}{number}", torch.from_numpy(array.copy()))

    def forward(self, x: Tensor) -> Tensor:
        first = self.program.shapes[0]
        maps = {0: x.reshape(-1, first.channels, first.height, first.width)}
        for number, step in enumerate(self.program.steps):
            value = self._made(maps[step.source], step, number)
            if step.added is not None:
                value = value + maps[step.added]
            maps[step.target] = F.relu(value) if step.relu else value
        return maps[self.program.last].reshape(-1, *self.outputs)

    def _made(self, x: Tensor, step: Step, number: int) -> Tensor:
        if step.kind == "convolve":
            weight, bias = self.get_buffer(f"weight{number}"), self.get_buffer(f"bias{number}")
            return F.conv2d(x, weight, bias, step.stride, step.padding)
        if step.kind == "scale":
            factors, bias = self.get_buffer(f"factors{number}"), self.get_buffer(f"bias{number}")
            return x * factors[:, None, None] + bias[:, None, None]
        if step.kind == "maximum":
            return F.max_pool2d(x, step.window, step.stride, step.padding)
        if step.kind == "mean":
            return F.avg_pool2d(x, step.window, step.stride)
        if step.channels is not None:
            x = F.pad(x[:, :, :: step.stride, :: step.stride], (0, 0, 0, 0, 0, 1))
            return x[:, torch.from_numpy(step.channels).long() % x.shape[1]]  # −1 is the channel of zeros
        return x
