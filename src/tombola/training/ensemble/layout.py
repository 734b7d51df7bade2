"""Where the parameters of all members lie in one buffer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """So many members' parameters in one flat buffer, parameter after parameter, each of shape (members, *shape)."""

    members: int
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def sizes(self) -> list[int]:
        """Numbers that each parameter takes, of all members together."""
        return [self.members * math.prod(shape) for shape in self.shapes.values()]

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """The parameters by name, as parts of the buffer."""
        named = zip(self.shapes.items(), flat.split(self.sizes), strict=True)
        return {name: part.view(self.members, *shape) for (name, shape), part in named}

    def spread(self, of_members: Tensor) -> Tensor:
        """A buffer that holds, at each position, the number of the member that it belongs to."""
        flat = of_members.new_empty(sum(self.sizes))
        for view in self.views(flat).values():
            view.copy_(of_members.view(-1, *[1] * (view.ndim - 1)).expand_as(view))
        return flat

    def zeros(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(sum(self.sizes), device=device, dtype=dtype)
