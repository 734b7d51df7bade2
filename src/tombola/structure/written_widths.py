"""Tries whether the code of a network follows when layers lose channels: it may have their number written in it."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tombola.structure.channel_cuts import channel_axes, cut_channels, kept_channels
from tombola.structure.channel_families import Families, families_of
from tombola.structure.double_precision import AllInDouble
from tombola.structure.graph import Probe
from tombola.structure.meta_device import meta_twin, quick_shapes
from tombola.structure.outputs import outputs_in
from tombola.structure.random_state import own_random_state
from tombola.structure.symmetry_trials import SAME, SAME_SINGLE
from tombola.structure.units import Units
from tombola.structure.wiring import NOBODY, Wiring
from tombola.tickets import Mask, bare, copied, device_of, parameters_of, zero_dead

WRITTEN = "code that has their number written in it"
"""In place of an operation through which channels cannot be cut."""


def written_channels(model: nn.Module, probe: Probe, wiring: Wiring, *, by_values: bool) -> dict[str, Tensor]:
    """The channels that cannot be cut since the network's code has their number written in it: by group, which.

    One unit of each family is cut out of a copy, which is then called. If that fails, the families are halved until
    those are found with which it fails.

    Args:
        model: the network; it stays as it is.
        probe: calls it on an example of its inputs.
        wiring: which channels feed which, by a trace.
        by_values: whether the outputs must be those of a masked copy too, and not only have the same shapes.

    Examples:
        >>> class Written(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.make, self.take, self.out = nn.Conv2d(1, 4, 1), nn.Linear(16, 3), nn.Linear(3, 2)
        ...     def forward(self, x):
        ...         return self.out(self.take(self.make(x).view(-1, 4 * 2 * 2)))
        >>> from tombola.structure.trace import wiring_of
        >>> wiring_of(Written(), lambda network: network(torch.ones(1, 1, 2, 2))).lost
        {'make': 'code that has their number written in it'}
    """
    families = families_of(wiring)
    if not families.sizes:
        return {}
    trial = _Trial.of(model, probe, wiring, families, by_values)
    if trial is None:
        return {}
    found: dict[str, Tensor] = {}
    for name in _failing(list(families.sizes), [], trial):
        for group, units in families.members[name].items():
            found[group] = found.get(group, torch.zeros(len(units), dtype=torch.bool)) | (units != NOBODY)
    return found


def _failing(names: list[str], fine: list[str], trial: _Trial) -> list[str]:
    """Those of these families without a unit of which the network cannot be called; the others come to the fine."""
    if trial.works([*fine, *names]):
        fine += names
        return []
    if len(names) == 1:
        return names
    half = len(names) // 2
    return _failing(names[:half], fine, trial) + _failing(names[half:], fine, trial)


@dataclass(frozen=True, eq=False)
class _Trial:
    """Calls of copies of a network that have lost channels.

    Args:
        twin: a copy, without values where only shapes count.
        probe: calls it.
        wiring: which channels feed which.
        families: the channels that go together.
        outputs: what it gives.
        same: how far outputs may differ, as a share of the largest one.
    """

    twin: nn.Module
    probe: Probe
    wiring: Wiring
    families: Families
    outputs: list[Tensor]
    same: float

    @staticmethod
    def of(model: nn.Module, probe: Probe, wiring: Wiring, families: Families, by_values: bool) -> _Trial | None:
        """None if the whole network cannot be called."""
        for twin_of, same in ((_doubled, SAME), (copied, SAME_SINGLE)) if by_values else ((meta_twin, 0), (copied, 0)):
            with suppress(Exception):  # the example may suit another device or precision alone
                twin = bare(twin_of(model)).eval()
                return _Trial(twin, probe, wiring, families, _outputs(copied(twin), probe, same), same)
        return None

    def works(self, names: Collection[str]) -> bool:
        """Whether the network without a unit of each of these families gives what it should."""
        kept = {name: torch.arange(self.families.sizes[name]) > 0 for name in names}
        dead = self.wiring.spread(self.families.removed(Mask.of(kept)), silencing=True)
        small, channels = copied(self.twin), kept_channels(self.wiring, self.wiring.removable(dead))
        try:
            cut_channels(small, channels, channel_axes(self.twin, channels))
            outputs = _outputs(small, self.probe, self.same)
        except Exception:
            return False
        if [own.shape for own in outputs] != [own.shape for own in self.outputs]:
            return False
        if not self.same:
            return True
        masked = copied(self.twin)
        units = Units(tuple(group for group in self.wiring.groups if group.slices))
        alive = Mask.of({group.name: ~dead[group.name] for group in units.groups})
        zero_dead(masked, units.expand(alive, parameters_of(masked)))
        expected = _outputs(masked, self.probe, self.same)
        return all(_gap(*pair) <= self.same for pair in zip(expected, outputs, strict=True))


def _gap(expected: Tensor, output: Tensor) -> float:
    if not expected.numel() or torch.equal(expected, output):
        return 0.0
    return float((expected - output).abs().max() / expected.abs().max().clamp(min=1e-30))


def _doubled(model: nn.Module) -> nn.Module:
    return copied(model).double()


def _outputs(twin: nn.Module, probe: Probe, same: float) -> list[Tensor]:
    quick = quick_shapes() if any(own.is_meta for own in twin.parameters()) else nullcontext()
    precision = AllInDouble() if same == SAME else nullcontext()
    with own_random_state(device_of(twin)), torch.no_grad(), quick, precision:
        return outputs_in(probe(twin))
