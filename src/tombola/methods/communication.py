"""How much workers send each other, counted as LoFT's table counts, and what other ways of sharing a training send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NUMBER = 4
"""Bytes of a weight or an activation, in float32."""
BOTH_WAYS = 2
"""What is sent is answered by as much: a worker's network by its next one, a gradient by the mean gradient, an
activation by its gradient."""


@dataclass(frozen=True)
class Communication:
    """What a training by several workers sends, in bytes.

    Args:
        networks: the numbers of each worker's network.
        whole: the numbers of the whole network.

    Examples:
        >>> count = Communication((60, 60), 100)  # 20 numbers that both have, 80 that are shared
        >>> count.filterwise(steps=30, local_steps=15), count.data_parallel(steps=30)
        (1920, 48000)
    """

    networks: tuple[int, ...]
    whole: int

    @staticmethod
    def of_sizes(replicated: int, shared: int, workers: int) -> Communication:
        """Of a network with so many numbers that every worker has, and so many that are shared equally.

        Examples:
            >>> Communication.of_sizes(20, 80, workers=2)
            Communication(networks=(60, 60), whole=100)
        """
        return Communication(tuple([replicated + shared // workers] * workers), replicated + shared)

    def filterwise(self, steps: int, local_steps: int) -> int:
        """Bytes of LoFT: after every `local_steps` steps, and after the last, each worker sends its network and gets
        its next one.
        """
        return BOTH_WAYS * NUMBER * sum(self.networks) * -(-steps // local_steps)

    def data_parallel(self, steps: int) -> int:
        """Bytes of data-parallel training: in each step each worker sends the whole gradient and gets the mean one."""
        return BOTH_WAYS * NUMBER * len(self.networks) * self.whole * steps


def pipelined(activations: Sequence[int], samples: int) -> int:
    """Bytes of a pipeline, as GPipe: each sample's activations go over each boundary, and their gradients back.

    Args:
        activations: numbers that one sample sends over each boundary between two workers.
        samples: that are trained on, over all epochs.

    Examples:
        >>> pipelined([16_384], samples=50_000 * 20)
        131072000000
    """
    return BOTH_WAYS * NUMBER * sum(activations) * samples
