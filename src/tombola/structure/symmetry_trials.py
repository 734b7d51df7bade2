"""Proves on an example that units of a network can change places."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tombola.structure.graph import Probe
from tombola.structure.modes import in_mode
from tombola.structure.outputs import outputs_in
from tombola.structure.random_state import own_random_state
from tombola.structure.symmetries import Symmetries, Symmetry
from tombola.tickets import device_of, put_values, tensors_of

SAME, SAME_SINGLE = 1e-8, 1e-3
"""The largest difference of outputs in double and in single precision, as a share of the largest output."""


def proved(candidates: list[Symmetry], model: nn.Module, probe: Probe) -> list[Symmetry]:
    """Those candidates whose moves leave the outputs as they are; where units cannot move, only whole blocks."""
    try:
        trial = _Trial.of(copy.deepcopy(model).double(), probe, SAME)
    except Exception:  # the example may suit the network's own precision alone
        trial = _Trial.of(copy.deepcopy(model), probe, SAME_SINGLE)
    if not candidates or trial.holds(candidates):
        return candidates
    valid = []
    for own in candidates:
        options = [own] if all(strand.size == 1 for strand in own.strands) else [own, own.coarser]
        valid += [option for option in options if trial.holds([option])][:1]
    return valid


@dataclass(frozen=True, eq=False)
class _Trial:
    """A copy of a network whose units are moved.

    Args:
        twin: the copy.
        tensors: its values before any move.
        outputs: what it gives then.
        probe: calls it.
        same: the largest difference of outputs, as a share of the largest one.
    """

    twin: nn.Module
    tensors: Mapping[str, Tensor]
    outputs: list[Tensor]
    probe: Probe
    same: float

    @staticmethod
    def of(twin: nn.Module, probe: Probe, same: float) -> _Trial:
        _shake(twin)
        tensors = {name: tensor.clone() for name, tensor in tensors_of(twin).items()}
        return _Trial(twin, tensors, _outputs(twin, probe), probe, same)

    def holds(self, tried: list[Symmetry]) -> bool:
        """Whether random moves leave the outputs as they are."""
        symmetries = Symmetries(tuple(tried))
        put_values(self.twin, symmetries.moved(self.tensors, symmetries.random(1)))
        pairs = zip(self.outputs, _outputs(self.twin, self.probe), strict=True)
        return all(
            one.shape == other.shape and float((one - other).abs().max()) <= self.same * float(one.abs().max())
            for one, other in pairs
        )


def _outputs(network: nn.Module, probe: Probe) -> list[Tensor]:
    with own_random_state(device_of(network), 0), torch.no_grad(), in_mode(network, "eval"):
        return [own.to(torch.complex128 if own.is_complex() else torch.float64) for own in outputs_in(probe(network))]


@torch.no_grad()
def _shake(model: nn.Module) -> None:
    """Move all numbers a little, so that no two units are equal by chance, as norms are at the beginning."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in tensors_of(model).items():
        if tensor.is_floating_point() or tensor.is_complex():
            noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
            scale = float(tensor.abs().double().mean()) or 1.0
            positive = name.endswith("running_var")
            tensor += (0.3 * scale * (noise if positive else 2 * noise - 1)).to(tensor.dtype)
