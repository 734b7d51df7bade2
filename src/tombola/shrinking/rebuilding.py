"""Whether a smaller network comes of the whole one that an origin builds."""

from __future__ import annotations

from torch import nn

from tombola.shrinking.cutting import cut
from tombola.shrinking.origin import Origin
from tombola.shrinking.plan import Plan
from tombola.tickets import tensors_of


def rebuilds(origin: Origin, small: nn.Module, plan: Plan) -> bool:
    """Whether the smaller network is what a plan cuts out of the network that an origin builds, layer by layer.

    Args:
        origin: how the whole network is built.
        small: the smaller network.
        plan: what was cut out.
    """
    for device in ("meta", "cpu"):
        try:
            whole = origin.build(device)
            if not _fits(plan, whole):
                return False
            again = cut(whole, plan.kept, plan.idle, plan.parts, plan.passes, plan.silent)
            break
        except Exception:  # some constructors compute with values, and others build what the plan does not fit
            continue
    else:
        return False
    shapes, own = ({name: t.shape for name, t in tensors_of(net).items()} for net in (again, small))
    return shapes == own and repr(again) == repr(small)


def _fits(plan: Plan, whole: nn.Module) -> bool:
    """Whether a network has all positions that stay; on the meta device, nothing else checks that."""
    tensors = tensors_of(whole)
    return all(
        name in tensors and (not len(positions) or int(positions.max()) < tensors[name].shape[dim])
        for name, axes in plan.axes(whole).items()
        for dim, positions in axes.items()
    )
