"""A network of which all members compute at once."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Stacked(Protocol):
    """One architecture with the values of all members.

    buffers: what the members hold besides parameters, by name, each (members, *shape).
    """

    buffers: dict[str, Tensor]

    def gradients(self, inputs: Tensor, targets: Tensor, /) -> Tensor:
        """Each member's loss of its own batch, (members,); its gradients replace what is in the buffer of gradients.

        inputs: (members, batch, …); targets: (members, batch, …).
        """
        ...

    def outputs(self, inputs: Tensor, /) -> Tensor:
        """What each member gives for the same batch, in evaluation: (members, batch, …)."""
        ...
