"""Tries whether the code of a network follows when layers lose channels: it may have their number written in it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tombola.structure.channel_cuts import channel_axes, cut_channels, kept_channels
from tombola.structure.channel_families import Families, families_of
from tombola.structure.double_precision import AllInDouble
from tombola.structure.graph import Probe
from tombola.structure.links import Links
from tombola.structure.meta_device import meta_twin, quick_shapes
from tombola.structure.outputs import outputs_in
from tombola.structure.random_state import own_random_state
from tombola.structure.symmetry_trials import SAME, SAME_SINGLE
from tombola.structure.units import Units
from tombola.structure.wiring import NOBODY, Wiring
from tombola.tickets import Mask, bare, copied, device_of, parameters_of, zero_dead

WRITTEN = "code that has their number written in it"
"""In place of an operation through which channels cannot be cut."""


def written_channels(model: nn.Module, probe: Probe, wiring: Wiring, links: Links) -> dict[str, Tensor]:
    """The channels that cannot be cut since the network's code has their number written in it: by group, which.

    One unit of each family is cut out of a copy, which is then called. If that fails, the families are halved until
    those are found with which it fails. Its outputs must have the shapes of the whole network's; where the trace has
    guessed, their values must be those of a masked copy too.

    Args:
        model: the network; it stays as it is.
        probe: calls it on an example of its inputs.
        wiring: which channels feed which, by a trace.
        links: what the trace has found.

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
    trial = _Trial.of(model, probe, wiring, families, links)
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
        model: the network; it stays as it is.
        twin_of: makes a copy, without values where only shapes count.
        probe: calls it.
        wiring: which channels feed which.
        families: the channels that go together.
        shapes: those of its outputs.
        same: how far outputs may differ, as a share of the largest one; None if only shapes count.
    """

    model: nn.Module
    twin_of: Callable[[nn.Module], nn.Module]
    probe: Probe
    wiring: Wiring
    families: Families
    shapes: list[torch.Size]
    same: float | None = None

    @staticmethod
    def of(model: nn.Module, probe: Probe, wiring: Wiring, families: Families, links: Links) -> _Trial:
        """The trial of a network, by what its trace has found."""
        twin_of = meta_twin if any(own.is_meta for own in links.outputs) else copied
        trial = _Trial(model, twin_of, probe, wiring, families, [own.shape for own in links.outputs])
        if not links.guessed:
            return trial
        with suppress(Exception):  # the example may suit another precision alone
            exact = replace(trial, model=_doubled(model), twin_of=copied, same=SAME)
            exact.outputs(exact.twin())
            return exact
        return replace(trial, twin_of=copied, same=SAME_SINGLE)

    def twin(self) -> nn.Module:
        """A copy of the network, in evaluation mode."""
        return bare(self.twin_of(self.model)).eval()

    def outputs(self, twin: nn.Module) -> list[Tensor]:
        """What a copy gives."""
        quick = quick_shapes() if any(own.is_meta for own in twin.parameters()) else nullcontext()
        precision = AllInDouble() if self.same == SAME else nullcontext()
        with own_random_state(device_of(twin)), torch.no_grad(), quick, precision:
            return outputs_in(self.probe(twin))

    def works(self, names: Collection[str]) -> bool:
        """Whether the network without a unit of each of these families gives what it should."""
        kept = {name: torch.arange(self.families.sizes[name]) > 0 for name in names}
        dead = self.wiring.spread(self.families.removed(Mask.of(kept)), silencing=True)
        small, channels = self.twin(), kept_channels(self.wiring, self.wiring.removable(dead))
        try:
            cut_channels(small, channels, channel_axes(self.model, channels))
            outputs = self.outputs(small)
        except Exception:
            return False
        if [own.shape for own in outputs] != self.shapes:
            return False
        if self.same is None:
            return True
        masked = self.twin()
        units = Units(tuple(group for group in self.wiring.groups if group.slices))
        alive = Mask.of({group.name: ~dead[group.name] for group in units.groups})
        zero_dead(masked, units.expand(alive, parameters_of(masked)))
        return all(_gap(*pair) <= self.same for pair in zip(self.outputs(masked), outputs, strict=True))


def _gap(expected: Tensor, output: Tensor) -> float:
    if not expected.numel() or torch.equal(expected, output):
        return 0.0
    return float((expected - output).abs().max() / expected.abs().max().clamp(min=1e-30))


def _doubled(model: nn.Module) -> nn.Module:
    return copied(model).double()
