"""A physically smaller network that computes what the masked one does."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.scores import Forward, Inputs, forward, suited
from tombola.shrinking.cutting import cut, move_optimizer
from tombola.shrinking.plan import Plan, plan
from tombola.structure import Probe, own_random_state, parts_of, tensors_in
from tombola.tickets import Mask, Ticket, attach, bare, device_of

TOLERANCE = 1e-9


class ShrinkWarning(UserWarning):
    """A network is not as small as its mask would let it be, and why."""


def shrink(
    model: nn.Module,
    what: Mask | Ticket,
    optimizer: Optimizer | None = None,
    example: Inputs | None = None,
    forward: Forward = forward,
) -> nn.Module:
    """A plain network of the same classes without the channels that a mask leaves dead.

    model: the masked network, with the weights that are to stay; it is not changed. What is compiled or checkpointed
    in it is not so in the smaller one. optimizer: is moved to the smaller network, its state cut the same way. example:
    inputs on which the network can be called. What is dead and cannot be cut out, as a channel of a residual stream
    that some layer still writes, stays as zeros: `preview(…).mask` keeps it so in training. The result is compared with
    the masked network in float64; TombolaError, and nothing is changed, if it differs, if the network cannot be traced,
    or if the optimizer is another model's.
    """
    small, found = smaller(model, what, _probe(example, forward))
    if optimizer is not None:
        move_optimizer(optimizer, model, small, found.kept)
    return small


def preview(model: nn.Module, what: Mask | Ticket, example: Inputs | None = None, forward: Forward = forward) -> Plan:
    """What `shrink` cuts out of a network, and the mask of what then is still dead."""
    return smaller(model, what, _probe(example, forward))[1]


def smaller(model: nn.Module, what: Mask | Ticket, probe: Probe) -> tuple[nn.Module, Plan]:
    """The smaller network, checked against the masked one, and what was cut out of it."""
    if any(isinstance(module, nn.parallel.DistributedDataParallel) for module in model.modules()):
        raise TombolaError(
            "the model is wrapped in DDP, which holds on to its parameters; shrink model.module, wrap it again"
        )
    try:
        masked = bare(copy.deepcopy(model))
    except RuntimeError as error:
        raise TombolaError(f"the network cannot be copied, and so not shrunk: {str(error).splitlines()[0]}") from error
    attach(what, masked).detach()
    mask, parts = _mask(what), parts_of(model)

    def checked(planned: Plan) -> tuple[nn.Module, Plan]:
        small = cut(masked, planned.kept, planned.idle)
        check_equal(masked, small, probe)
        if planned.lost:
            _warn_of(planned.lost)
        return small, planned

    found = plan(masked, mask, probe, parts)
    try:
        return checked(found)
    except TombolaError as error:
        if not (parts or found.idle):
            raise
        try:
            larger = checked(plan(masked, mask, probe, bypass=False))
        except TombolaError:
            raise error from None
        warnings.warn(
            f"what is known by names or declared is masked in the smaller network, and not cut out of it: {error}",
            ShrinkWarning,
            stacklevel=3,
        )
        return larger


def _warn_of(lost: Mapping[str, str]) -> None:
    """Say which channels were left because their way could not be followed."""
    name, others = next(iter(lost)), len(lost) - 1
    more = f" and of {others} other layer{'s' * (others > 1)}" if others else ""
    warnings.warn(
        f"removed channels of '{name}'{more} are masked in the smaller network, and not cut out of it: torch-pruning "
        f"cannot follow them through {', '.join(sorted(set(lost.values())))}",
        ShrinkWarning,
        stacklevel=5,
    )


def _mask(what: Mask | Ticket) -> Mask:
    return what.mask if isinstance(what, Ticket) else what


@torch.no_grad()
def check_equal(masked: nn.Module, small: nn.Module, probe: Probe) -> None:
    """TombolaError unless two networks in float64 give the same outputs in evaluation mode, to 1e-9 relative.

    The smaller one must also run in training mode if the masked one does, where layers may be called that are not else.
    """
    one, other = copy.deepcopy(masked).double(), copy.deepcopy(small).double()
    before, after = tensors_in(probe(one.eval())), _called(other.eval(), probe)
    gap = max((_gap(*pair) for pair in zip(before, after, strict=True)), default=0.0)
    if not gap <= TOLERANCE:
        raise TombolaError(
            f"the smaller network's outputs differ from the masked network's by {gap:.1e} of their size, so it is not "
            "handed over: what stands between its layers is not what their trace or names say; keep the masked network"
        )
    with own_random_state(device_of(one)):
        try:
            probe(one.train())
        except Exception:
            return
        _called(other.train(), probe)


def _called(small: nn.Module, probe: Probe) -> list[Tensor]:
    try:
        return tensors_in(probe(small))
    except Exception as error:
        raise TombolaError(
            f"the smaller network cannot be called ({str(error).splitlines()[0]}), so it is not handed over: its code "
            "has the number of channels written in it, or uses them where no trace sees it; keep the masked network"
        ) from error


def _gap(before: Tensor, after: Tensor) -> float:
    """The largest difference, relative to the largest finite value."""
    if before.shape != after.shape:
        return float("inf")
    if torch.equal(before, after):
        return 0.0
    finite = before.isfinite()
    if not before.is_floating_point() or not torch.allclose(before[~finite], after[~finite], equal_nan=True):
        return float("inf")
    return float((before - after)[finite].abs().max() / before[finite].abs().max().clamp(min=1e-30))


def _probe(example: Inputs | None, forward: Forward) -> Probe:
    if example is None:
        raise TombolaError("shrinking needs inputs to call the network with; give example=, a batch of a few samples")

    return lambda model: forward(model, suited(example, model))
