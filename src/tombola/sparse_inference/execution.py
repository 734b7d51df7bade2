"""A program as a module that runs it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.sparse_inference import numba_kernels
from tombola.sparse_inference.compiler import kernels, why_not_compiled
from tombola.sparse_inference.dense_twin import DenseTwin
from tombola.sparse_inference.program import TILES, Floats, Lowered, Program
from tombola.sparse_inference.program_check import check_program

WORTH_A_THREAD = 8_000_000
"""Multiplications that each thread must have to do, about 0.4 ms: with less, a second one cost more than it saved."""


class SparseProgram(nn.Module):
    """Runs a program, for inference in float32 on the CPU.

    Args:
        program: what is run.
        inputs: the shape of a sample that goes in.
        outputs: the shape of a sample that comes out.
        tile: how many samples lie side by side at most.
    """

    def __init__(self, program: Program, inputs: tuple[int, ...], outputs: tuple[int, ...], tile: int) -> None:
        super().__init__()
        check_program(program)
        self.program, self.inputs, self.outputs, self.tile = program, inputs, outputs, tile
        self._forget()

    def forward(self, x: Tensor) -> Tensor:
        leading = self._leading(x)
        x = x.detach().reshape(-1, self.program.shapes[0].size).contiguous()
        out = torch.empty(len(x), self.program.shapes[self.program.last].size)
        if len(x) and not why_not_compiled():
            self.run(x, out, 0, len(self.program.steps))
        elif len(x):
            out = torch.from_numpy(numba_kernels.run(self.program, x.numpy()))
        return out.reshape(*leading, *self.outputs)

    def run(self, x: Tensor, out: Tensor, first: int, last: int) -> None:
        """Run some of the steps; the first one reads its input, and the last one writes the output.

        Args:
            x: (samples, inputs), contiguous.
            out: (samples, outputs), contiguous.
            first: the first step.
            last: the step after the last one.
        """
        work = self.program.work * len(x)
        threads = max(1, min(torch.get_num_threads(), work // WORTH_A_THREAD, len(x) // TILES[0]))
        tile = min(self.tile, next((tile for tile in TILES if tile * threads >= len(x)), TILES[-1]))
        if tile not in self._lowered:
            self._lowered[tile] = Lowered(self.program, tile)
        scratch = self._scratch(tile, threads)
        pointers = (self._lowered[tile].address, x.data_ptr(), out.data_ptr(), scratch.ctypes.data)
        kernels().run(*pointers, len(x), threads, first, last)
        self._free.setdefault((tile, threads), []).append(scratch)

    @property
    def dense(self) -> DenseTwin:
        """The same with all its zeros, in PyTorch: to train no more, but to compare with and to export."""
        return DenseTwin(self.program, self.outputs).eval()

    def _scratch(self, tile: int, threads: int) -> Floats:
        """Maps that no other call is at."""
        free = self._free.get((tile, threads))
        return free.pop() if free else self._lowered[tile].scratch(threads)

    def _leading(self, x: Tensor) -> tuple[int, ...]:
        """The axes of samples; TombolaError if this is no input of the program."""
        if x.device.type != "cpu" or x.dtype != torch.float32 or (torch.is_grad_enabled() and x.requires_grad):
            raise TombolaError(
                "a sparse network runs in float32 on the CPU and without gradients; train the masked network, "
                "and call the sparse one under torch.no_grad()"
            )
        if self.training:
            raise TombolaError("a sparse network is for inference; call .eval(), or train the masked network")
        ends = len(x.shape) - len(self.inputs)
        if ends < 0 or tuple(x.shape[ends:]) != self.inputs or (len(self.inputs) > 1 and ends != 1):
            raise TombolaError(
                f"this sparse network was made for samples of shape {self.inputs}, and the input has the shape "
                f"{tuple(x.shape)}; make one for it with an example of that shape"
            )
        return tuple(x.shape[:ends])

    def extra_repr(self) -> str:
        kept = sum(len(step.kept.values) for step in self.program.steps if step.kept is not None)
        return f"{len(self.program.steps)} steps, {kept} weights, tile={self.tile}"

    def _forget(self) -> None:
        self._lowered: dict[int, Lowered] = {}
        self._free: dict[tuple[int, int], list[Floats]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key not in ("_lowered", "_free")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()


def with_zeros(network: nn.Module) -> nn.Module:
    """The network with PyTorch's dense layers in place of what runs sparse; changes the network, but for its root."""
    if isinstance(network, SparseProgram):
        return network.dense
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, SparseProgram):
                setattr(module, name, child.dense)
    return network
