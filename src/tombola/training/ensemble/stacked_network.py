"""A network computed for all members at once."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Stacked(Protocol):
    """One architecture with the values of all members.

    buffers: what the members hold besides parameters, by name, each (members, *shape).
    """

    buffers: dict[str, Tensor]

    def gradients(self, inputs: Tensor, targets: Tensor, /) -> Tensor:
        """Compute each member's loss on its own batch, and write its gradients into the buffer of gradients.

        Args:
            inputs: (members, batch, …).
            targets: (members, batch, …).

        Returns:
            Losses, (members,).
        """
        ...

    def outputs(self, inputs: Tensor, /) -> Tensor:
        """Each member's outputs for the same batch, in evaluation mode: (members, batch, …)."""
        ...
