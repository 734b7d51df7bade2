"""The channels of a network's batch norms as units."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from tombola.errors import TombolaError
from tombola.structure.layers import BATCH_NORMS, leaving_slices
from tombola.structure.units import UnitGroup, Units
from tombola.tickets import modules_of


def norm_units(model: nn.Module, without: Collection[str] = ()) -> Units:
    """The channels of a network's batch norms, a group for each.

    Args:
        model: the network.
        without: names of norms that are left out.

    Raises:
        TombolaError: if no batch norm has a scale.
    """
    groups = tuple(
        UnitGroup(name, module.num_features, tuple(leaving_slices(name, module)))
        for name, module in modules_of(model).items()
        if isinstance(module, BATCH_NORMS) and module.affine and name not in without
    )
    if not groups:
        raise TombolaError(
            "the network has no batch norm with a scale, by which these channels are chosen; use one of the scores "
            "magnitude, snip, grasp, synflow or random with granularity=Channels()"
        )
    return Units(groups)
