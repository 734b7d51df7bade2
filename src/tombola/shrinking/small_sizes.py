"""How large the network is that a mask leaves, counted on shapes alone: many masks in the time of a few cuts."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import nn

from tombola.nested import samples_in
from tombola.scores import Forward, Inputs, forward, suited
from tombola.shrinking.cutting import cut
from tombola.shrinking.flops import flop_counter
from tombola.shrinking.plan import cuts_streams, known_wiring, plan
from tombola.structure import found_parts, in_mode, meta_twin
from tombola.tickets import Mask, copied


@dataclass(frozen=True)
class Size:
    """How large a network is.

    Args:
        parameters: how many numbers its parameters hold.
        flops: floating-point operations of one sample forward, as torch counts them.
    """

    parameters: int
    flops: float

    def share_of(self, whole: Size) -> dict[str, float]:
        """Both as shares of another network's."""
        return {"flops": self.flops / max(whole.flops, 1), "parameters": self.parameters / whole.parameters}


class SmallSizes:
    """Counts what `shrink` would leave of a network, mask by mask.

    Args:
        model: the network, which stays as it is.
        example: a batch of a few samples, on which it can be called.
        forward: calls a network on the example.

    Examples:
        >>> from torch import ones, tensor
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> sizes = SmallSizes(model, ones(1, 4))
        >>> rows = tensor([True, False, True])
        >>> sizes.whole, sizes.of(Mask.of({"0.weight": rows[:, None].expand(3, 4), "0.bias": rows}))
        (Size(parameters=23, flops=36.0), Size(parameters=16, flops=24.0))
    """

    def __init__(self, model: nn.Module, example: Inputs, forward: Forward = forward) -> None:
        self._model, self._example, self._forward = model, example, forward
        self._find = functools.cache(lambda: found_parts(model, self.probe))
        self._wiring = functools.cache(lambda streams: known_wiring(model, self.probe, self._find, streams=streams))

    def probe(self, model: nn.Module) -> object:
        """Call a network on the example."""
        return self._forward(model, suited(self._example, model))

    @functools.cached_property
    def whole(self) -> Size:
        """The size of the network itself."""
        return self._counted(self._twin)

    def of(self, mask: Mask) -> Size:
        """The size of the network that a mask leaves; TombolaError if the network can be neither traced nor named."""
        cuts = plan(self._model, mask, self.probe, self._find, wiring=self._wiring(cuts_streams(self._model, mask)))
        return self._counted(cut(self._twin, cuts.kept, cuts.idle, cuts.parts, cuts.passes, cuts.silent))

    @functools.cached_property
    def _twin(self) -> nn.Module:
        """The network on the meta device, where counting takes no time; a copy of it if it cannot run there."""
        twin = meta_twin(self._model)
        try:
            self._counted(twin)
        except (RuntimeError, NotImplementedError, TypeError, ValueError):  # its forward looks at values
            return copied(self._model)
        return twin

    @torch.no_grad()
    def _counted(self, network: nn.Module) -> Size:
        with in_mode(network, "eval"), flop_counter() as counter:
            self.probe(network)
        flops = counter.get_total_flops() / (samples_in(self._example) or 1)
        return Size(sum(parameter.numel() for parameter in network.parameters()), flops)
