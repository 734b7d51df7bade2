"""The layout of all members' parameters in one buffer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """The places of all members' parameters in one flat buffer.

    The buffer holds one parameter after another, and of each parameter all members: (members, *shape).

    Args:
        members: how many there are.
        shapes: one member's, by parameter name, in the order of the buffer.

    Examples:
        >>> layout = Layout(2, {"weight": (3, 4), "bias": (3,)})
        >>> {name: tuple(view.shape) for name, view in layout.views(layout.zeros(torch.device("cpu"))).items()}
        {'weight': (2, 3, 4), 'bias': (2, 3)}
    """

    members: int
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def sizes(self) -> list[int]:
        """How many numbers of the buffer each parameter takes, for all members together."""
        return [self.members * math.prod(shape) for shape in self.shapes.values()]

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """The parameters by name, as views of the buffer."""
        named = zip(self.shapes.items(), flat.split(self.sizes), strict=True)
        return {name: part.view(self.members, *shape) for (name, shape), part in named}

    def spread(self, of_members: Tensor) -> Tensor:
        """A buffer with one number a member at all places of that member; of_members: (members,)."""
        flat = of_members.new_empty(sum(self.sizes))
        for view in self.views(flat).values():
            view.copy_(of_members.view(-1, *[1] * (view.ndim - 1)).expand_as(view))
        return flat

    def zeros(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        """A buffer of zeros."""
        return torch.zeros(sum(self.sizes), device=device, dtype=dtype)
