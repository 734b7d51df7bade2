"""NaN and infinity in data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from torch import Tensor

from tombola.errors import TombolaError
from tombola.nested import tensors_in
from tombola.training.loaders import pairs_of


class MeasureWarning(UserWarning):
    """A loss or a metric of a split is no finite number."""


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


def say_unfinite(batches: Iterable[Any], split: str, metric: float, loss: float) -> None:
    """Say why a metric or a loss is no finite number.

    Args:
        batches: of which they are.
        split: its name.
        metric: over all batches.
        loss: their mean loss.

    Raises:
        TombolaError: if there is NaN in the data; without any, it is a warning.
    """
    what, value = ("loss", loss) if not math.isfinite(loss) else ("metric", metric)
    for number, batch in enumerate(pairs_of(batches), start=1):
        for found in unfinite(*batch):
            if math.isnan(found.value):
                raise TombolaError(
                    f"the {what} of the split '{split}' is {value}, and the {found.what} of its batch {number} hold "
                    f"{found.value} at sample {found.sample}; give numbers there, or leave that sample out"
                )
    warnings.warn(
        f"the {what} of the split '{split}' is {value}, though its data hold no NaN; look at what the network and the "
        f"{what} make of them, as where they are all alike",
        MeasureWarning,
        stacklevel=3,
    )


def _first_unfinite(tensor: Tensor) -> int | None:
    # Of finite numbers the sum may overflow, so that a closer look decides; it is the slow one.
    if not (tensor.is_floating_point() or tensor.is_complex()) or bool(tensor.sum().isfinite()) or not tensor.ndim:
        return None
    bad = (~tensor.flatten(1).isfinite().all(1) if tensor.ndim > 1 else ~tensor.isfinite()).nonzero()
    return int(bad[0]) if len(bad) else None
