"""The channels of a network's batch norms, by themselves."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from tombola.errors import TombolaError
from tombola.structure.layers import BATCH_NORMS, leaving_slices
from tombola.structure.units import UnitGroup, Units
from tombola.tickets import modules_of


def norm_units(model: nn.Module, without: Collection[str] = ()) -> Units:
    """A group for each batch norm that has a scale and is not left out; TombolaError if there is none."""
    named = modules_of(model)
    groups = tuple(
        UnitGroup(name, module.num_features, tuple(leaving_slices(name, module)))
        for name, module in named.items()
        if isinstance(module, BATCH_NORMS) and module.affine and name not in without
    )
    if not groups:
        raise TombolaError(
            "the network has no batch norm with a scale, by which these channels are chosen; use one of the scores "
            "magnitude, snip, grasp, synflow or random with granularity=Channels()"
        )
    return Units(groups)
