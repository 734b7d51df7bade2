"""A physically smaller network that computes what the masked one does."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.nested import tensors_in
from tombola.registry import lower_is_better
from tombola.scores import Batches, Forward, Inputs, forward, suited
from tombola.shrinking.comparison import check_equal
from tombola.shrinking.cutting import cut, move_optimizer
from tombola.shrinking.plan import Plan, cuts_streams, plan
from tombola.shrinking.recalibration import Metric, correct, mean_metric, warn_of_fall
from tombola.shrinking.recalibration import recalibrate as take_statistics
from tombola.structure import Probe, earlier_wiring, found_parts
from tombola.tickets import (
    Mask,
    Ticket,
    bare,
    check_network,
    check_whole,
    steppers_of,
    zero_dead,
    zeros_of,
)

TOLD = 0.1
"""The share of the weights of removed channels from which on it is said that they could not be cut out."""


class ShrinkWarning(UserWarning):
    """A network is larger than its mask allows; the text says why."""


def shrink(
    model: nn.Module,
    what: Mask | Ticket,
    optimizer: Optimizer | None = None,
    example: Inputs | None = None,
    forward: Forward = forward,
    *,
    recalibrate: Batches | None = None,
    data: Batches | None = None,
    metric: Metric = correct,
) -> nn.Module:
    """Make a smaller network that computes what a masked one does, without the channels that the mask leaves dead.

    Dead weights that cannot be cut out stay as zeros, as in a residual channel that another layer still feeds.
    To keep them at zero in further training, attach `preview(…).mask`. The smaller network is compared with the masked
    one in float64 before it is returned.

    Args:
        model: the network with its present weights, masked or not; it is not changed.
        what: the mask, or the ticket whose mask counts.
        optimizer: an optimizer of the model, which moves to the smaller network; its state is cut in the same way.
        example: a batch of a few samples, on which the network can be called.
        forward: calls the network on the example.
        recalibrate: batches (inputs, targets), on which the smaller network's batch norms take their statistics anew.
            Its outputs are compared with the masked network's before that.
        data: batches (inputs, targets), on which the metric is measured before and after; a fall is warned of. The
            network is measured as it is given, so give the unmasked one.
        metric: the mean metric of a batch, from outputs and targets; the accuracy of classes if none is given.

    Returns:
        A network with the same classes of layers, but for norms of narrower streams and torch's attention, without
        wrappers for compilation or checkpointing.

    Raises:
        TombolaError: the network cannot be traced, the outputs differ, or the optimizer is another model's. Nothing is
            changed then.

    Examples:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> rows = torch.tensor([True, False, True])
        >>> mask = Mask.of({"0.weight": rows[:, None].expand(3, 4), "0.bias": rows})
        >>> shrink(model, mask, example=torch.ones(1, 4))
        Sequential(
          (0): Linear(in_features=4, out_features=2, bias=True)
          (1): ReLU()
          (2): Linear(in_features=2, out_features=2, bias=True)
        )
    """
    if optimizer is not None and not hasattr(optimizer, "param_groups"):
        raise TombolaError(
            f"the third argument is the optimizer, and not a {type(optimizer).__name__}; give the inputs as example="
        )
    inner = None if optimizer is None else _innermost(optimizer)
    small, cuts = smaller(model, what, _probe(example, forward))
    warn_if_whole(what, cuts)
    if recalibrate is not None:
        take_statistics(small, recalibrate, forward)
    if data is not None:
        before, after = (mean_metric(own, data, metric, forward) for own in (model, small))
        warn_of_fall(before, after, bool(lower_is_better(metric)))
    if inner is not None:
        move_optimizer(inner, model, small, cuts.axes(model))
    return small


def _innermost(optimizer: Optimizer) -> Optimizer:
    """The optimizer in a wrapper that only passes on; TombolaError for one with tensors of its own."""
    (stepper,) = steppers_of(optimizer)
    inner, *others = stepper.inner
    own = [vars(level) for level in stepper.levels if level is not inner and hasattr(level, "__dict__")]
    if others or any(tensor not in stepper.parameters for tensor in tensors_in(own)):
        raise TombolaError(
            f"a {type(optimizer).__name__} has state beside that of the optimizer in it, which cannot be cut; shrink "
            "without optimizer= and make a new one"
        )
    return inner


def preview(model: nn.Module, what: Mask | Ticket, example: Inputs | None = None, forward: Forward = forward) -> Plan:
    """The plan of what `shrink` cuts out, with the mask of what is still dead afterwards. Arguments as for `shrink`."""
    return smaller(model, what, _probe(example, forward))[1]


def smaller(model: nn.Module, what: Mask | Ticket, probe: Probe) -> tuple[nn.Module, Plan]:
    """The smaller network, compared with the masked one, and the plan of what was cut out.

    Args:
        model: the network with its present weights, which is not changed.
        what: the mask, or the ticket whose mask counts.
        probe: calls the model on an example.

    Returns:
        The network and the plan. If cutting by names fails the comparison, both come from the trace alone, with a
        ShrinkWarning.

    Raises:
        TombolaError: the network cannot be copied or traced, or its outputs differ from the masked network's.
    """
    check_network(model)
    mask = zeros_of(what)
    if any(isinstance(module, nn.parallel.DistributedDataParallel) for module in model.modules()):
        raise TombolaError(
            "the model is wrapped in DDP, which holds on to its parameters; shrink model.module and wrap the result"
        )
    check_whole(model, "shrinking it")
    find = functools.cache(lambda: found_parts(model, probe))

    def checked(cuts: Plan) -> tuple[nn.Module, Plan]:
        small = bare(cut(model, cuts.kept, cuts.idle, cuts.parts, cuts.passes, cuts.silent))
        zero_dead(small, cuts.mask)
        check_equal(model, small, probe, mask)
        if cuts.left >= TOLD:
            _warn_of_lost(cuts)
        if cuts.uncut:
            _warn_of_uncut(cuts.uncut)
        return small, cuts

    known = earlier_wiring(model, streams=cuts_streams(model, mask))
    if known is not None:
        with contextlib.suppress(TombolaError):  # the code may take another way since
            return checked(plan(model, mask, probe, find, wiring=known))
    cuts = plan(model, mask, probe, find)
    try:
        return checked(cuts)
    except TombolaError as error:
        if not (cuts.parts or cuts.idle or cuts.silent):
            raise
        if cuts.silent:  # its module's code may need the layers of a part that computes nothing
            with contextlib.suppress(TombolaError):
                return checked(plan(model, mask, probe, find, bypass=False))
        # Names and declarations may be wrong where the trace is right.
        try:
            larger = checked(plan(model, mask, probe, bypass=False))
        except TombolaError:
            raise error from None
        warnings.warn(
            "heads, neurons and blocks that are declared or known by names are masked in the smaller network, and not "
            f"cut out of it: {error}",
            ShrinkWarning,
            stacklevel=3,
        )
        return larger


def warn_if_whole(what: Mask | Ticket, cuts: Plan) -> None:
    """Warn if nothing was cut out of a network of which a mask removes weights.

    Args:
        what: the mask, or the ticket whose mask counts.
        cuts: the plan of what was cut out.
    """
    mask = zeros_of(what)
    if mask.total_kept < mask.size and cuts.is_empty and not (cuts.lost or cuts.uncut):
        warnings.warn(
            "nothing was cut out, so the network is as large as before: no removed channel, head, neuron or block can "
            "go whole; search with early-bird or tb.Channels() (--granularity channel) for a ticket that can be cut",
            ShrinkWarning,
            stacklevel=3,
        )


def _warn_of_lost(cuts: Plan) -> None:
    """Warn of channels that stay because they cannot be cut where they go."""
    name, others = next(iter(cuts.lost)), len(cuts.lost) - 1
    more = f" and of {others} other layer{'s' * (others > 1)}" if others else ""
    warnings.warn(
        f"removed channels of '{name}'{more} are masked in the smaller network, and not cut out of it, which are "
        f"{cuts.left:.0%} of all weights of removed channels: they cannot be followed or cut through "
        f"{', '.join(sorted(set(cuts.lost.values())))}",
        ShrinkWarning,
        stacklevel=5,
    )


def _warn_of_uncut(uncut: Sequence[str]) -> None:
    """Warn of heads and neurons that stay because their module's code allows no other number of them."""
    others = len(uncut) - 1
    more = f" (and those of {others} other module{'s' * (others > 1)})" if others else ""
    warnings.warn(
        f"removed units are masked in the smaller network, and not cut out of it: the {uncut[0]}{more}",
        ShrinkWarning,
        stacklevel=5,
    )


def _probe(example: Inputs | None, forward: Forward) -> Probe:
    if example is None:
        raise TombolaError("shrinking needs inputs to call the network with; give example=, a batch of a few samples")

    return lambda model: forward(model, suited(example, model))
