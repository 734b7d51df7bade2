"""Why no channel of a network can be cut out of it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tombola.structure.layers import has_weight, is_producer
from tombola.structure.recurrent_layers import RECURRENT, is_recurrent
from tombola.structure.wiring import Wiring
from tombola.tickets import modules_of


def why_whole(model: nn.Module, wiring: Wiring) -> str:
    """What keeps the channels of a network together, as a clause of an error; empty if nothing is known of it.

    Args:
        model: the network.
        wiring: which channels feed which, and what is lost.
    """
    modules = modules_of(model)
    computed = [name for name, module in modules.items() if is_producer(module) and not has_weight(module)]
    recurrent = [name for name, own in modules.items() if isinstance(own, RECURRENT) and not is_recurrent(own)]
    reasons = []
    if computed:
        reasons.append(
            f"the weight of {_named(computed)} is computed anew in each call, so make it a plain one first "
            "(torch.nn.utils.parametrize.remove_parametrizations, or remove_weight_norm and remove_spectral_norm)"
        )
    if recurrent:
        reasons.append(
            f"all channels of {_named(recurrent)} meet in each step of {type(modules[recurrent[0]]).__name__}, which "
            "is no plain recurrent layer of torch"
        )
    operations = sorted({*wiring.lost.values(), *wiring.unlisted.values()})
    if operations and not reasons:
        reasons.append(f"its channels reach {', '.join(operations)}, where all of them are needed")
    return "; ".join(reasons)


def _named(names: Sequence[str]) -> str:
    others = len(names) - 1
    return f"'{names[0]}'" + (f" and {others} other layer{'s' * (others > 1)}" if others else "")
