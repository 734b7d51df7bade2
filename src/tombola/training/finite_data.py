"""NaN and infinity in data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from tombola.nested import tensors_in


class Unfinite(NamedTuple):
    """A place where data hold no number.

    Args:
        what: "inputs" or "targets".
        sample: the first such one.
        value: NaN or infinity, as it stands there.
    """

    what: str
    sample: int
    value: float


def unfinite(inputs: Any, targets: Any) -> Iterator[Unfinite]:
    """Find the first sample with NaN or infinity of each tensor that has one.

    Args:
        inputs: tensors, samples first, in any nest.
        targets: the same.

    Examples:
        >>> import torch
        >>> [*unfinite({"x": torch.tensor([[1.0], [torch.inf]])}, torch.arange(2))]
        [Unfinite(what='inputs', sample=1, value=inf)]
    """
    for what, values in (("inputs", inputs), ("targets", targets)):
        for tensor in tensors_in(values):
            if (sample := _first_unfinite(tensor)) is not None:
                own = tensor[sample]
                yield Unfinite(what, sample, own[~own.isfinite()].flatten()[0].item())


def _first_unfinite(tensor: Tensor) -> int | None:
    # Of finite numbers the sum may overflow, so that a closer look decides; it is the slow one.
    if not (tensor.is_floating_point() or tensor.is_complex()) or bool(tensor.sum().isfinite()) or not tensor.ndim:
        return None
    bad = (~tensor.flatten(1).isfinite().all(1) if tensor.ndim > 1 else ~tensor.isfinite()).nonzero()
    return int(bad[0]) if len(bad) else None
