"""Whether a smaller network computes what the masked one does."""

from __future__ import annotations

import contextlib
import math
from itertools import chain

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.structure import AllInDouble, Probe, outputs_in, own_random_state
from tombola.tickets import Mask, bare, copied, device_of, zero_dead

TOLERANCE, SINGLE_TOLERANCE = 1e-9, 1e-4
"""How far outputs may differ: in float64, and in float32 where a network cannot be called in float64."""

WHOLE = Mask({})
"""The mask under which nothing counts as zero."""


@torch.no_grad()
def check_equal(model: nn.Module, small: nn.Module, probe: Probe, mask: Mask = WHOLE) -> None:
    """Check that a masked and a smaller network give the same outputs in float64 and evaluation mode, to 1e-9 relative.

    What they compute in float32 of their own accord, they compute in float64 too, so that its rounding hides nothing.
    The smaller one must also run in training mode if the masked one does, since training may call further layers.

    Args:
        model: the whole network; it stays as it is.
        small: the smaller network.
        probe: calls a network on an example.
        mask: what of the whole network counts as zero.

    Raises:
        TombolaError: the outputs differ, or the smaller network cannot be called.
    """
    masked, small, expected, outputs, tolerance = _called(model, mask, small, probe)
    gaps = [_gap(*pair) for pair in zip(expected, outputs, strict=False)]
    gap = max(gaps, default=0.0) if len(outputs) == len(expected) else math.inf
    if not gap <= tolerance:
        raise TombolaError(
            f"the smaller network's outputs differ from the masked network's by {gap:.1e} of their size, so it is not "
            "returned: the network computes something that its trace or names do not show; keep the masked network"
        )
    # Outputs in training mode are not compared, since dropout is random; so float32, which is faster, will do, and the
    # random state only has to come back.
    with own_random_state(device_of(masked)):
        try:
            probe(small.float().train())
        except Exception:
            try:
                probe(masked.float().train())
            except Exception:  # the example may be too small for training, as one sample is for batch norm
                return
            _call_small(small, probe)


def _called(
    model: nn.Module, mask: Mask, small: nn.Module, probe: Probe
) -> tuple[nn.Module, nn.Module, list[Tensor], list[Tensor], float]:
    """Copies of both networks, since calls may change buffers, their outputs, and how far these may differ."""
    # Its code may check its precision, and some kernels have no float64, as those of stacked experts.
    ways = (AllInDouble, Exception), (contextlib.nullcontext, (RuntimeError, NotImplementedError))
    for precision, refusals in ways:
        twins = _masked(_doubled(model), mask), _doubled(small).eval()
        with precision():
            try:
                expected = outputs_in(probe(twins[0]))
            except refusals:
                continue
            return *twins, expected, _call_small(twins[1], probe), TOLERANCE
    twins = _masked(copied(model), mask), copied(small).eval()
    return *twins, outputs_in(probe(twins[0])), _call_small(twins[1], probe), SINGLE_TOLERANCE


def _masked(twin: nn.Module, mask: Mask) -> nn.Module:
    """A copy with zeros for what is dead, in evaluation mode."""
    twin = bare(twin).eval()
    zero_dead(twin, mask)
    return twin


def _doubled(model: nn.Module) -> nn.Module:
    """A copy of a network in float64, for which no tensor is copied twice."""
    twins: dict[int, Tensor] = {}
    for tensor in chain(model.parameters(), model.buffers()):
        twin = tensor.detach().to(torch.float64 if tensor.is_floating_point() else tensor.dtype, copy=True)
        twins[id(tensor)] = nn.Parameter(twin, requires_grad=False) if isinstance(tensor, nn.Parameter) else twin
    return copied(model, twins).double()


def _call_small(small: nn.Module, probe: Probe) -> list[Tensor]:
    try:
        return outputs_in(probe(small))
    except Exception as error:
        raise TombolaError(
            f"the smaller network cannot be called ({str(error).splitlines()[0]}), so it is not returned: its code "
            "has the number of channels written in it, or uses them where no trace sees it; keep the masked network"
        ) from error


def _gap(expected: Tensor, output: Tensor) -> float:
    """The largest difference, relative to the largest finite value; infinite where shapes, integers or NaNs differ."""
    if expected.shape != output.shape:
        return float("inf")
    if torch.equal(expected, output):
        return 0.0
    finite = expected.isfinite()
    if not expected.is_floating_point() or not torch.allclose(expected[~finite], output[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    return float((expected - output)[finite].abs().max() / expected[finite].abs().max().clamp(min=1e-30))
