"""The range that inputs lie in, which bounds an attack on them: typed, or that of a named data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tombola.errors import TombolaError
from tombola.training.adversary import Bound

Range = tuple[Bound, Bound]
"""The lowest and the highest value, each one number or one for each channel."""


def data_range(words: Sequence[str]) -> Range:
    """The range that was typed.

    Args:
        words: the lowest and the highest value.

    Raises:
        TombolaError: they are no such words.

    Examples:
        >>> data_range(["0", "1"]), data_range(["-1,-2", "1,2"])
        ((0.0, 1.0), ((-1.0, -2.0), (1.0, 2.0)))
    """
    try:
        low, high = (tuple(map(float, bound.split(","))) for bound in words)
    except ValueError as error:
        raise TombolaError(
            f"--data-range is '{' '.join(words)}'; give the lowest and the highest value of the inputs, as 0 1, each "
            "one number or one for each channel, as -1,-2 1,2"
        ) from error
    return (low[0] if len(low) == 1 else low), (high[0] if len(high) == 1 else high)


def range_of(inputs: Any) -> Range | None:
    """The range of a data set's training inputs, in each channel of images; None if they are no numbers with one.

    Args:
        inputs: of all samples, samples first.
    """
    if not (isinstance(inputs, Tensor) and inputs.is_floating_point()):
        return None
    if inputs.ndim < 3:
        return inputs.min().item(), inputs.max().item()
    channels = inputs.transpose(0, 1).flatten(1)
    low, high = (tuple(bound.tolist()) for bound in channels.aminmax(dim=1))
    return (low[0], high[0]) if len(low) == 1 else (low, high)
