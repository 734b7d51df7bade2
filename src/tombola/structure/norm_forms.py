"""What norms over the channels of a place compute, and what they compute where some channels are missing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NormForm:
    """What a layer or RMS norm computes.

    Args:
        axis: along which the channels lie, 1 or -1.
        centred: whether it subtracts the mean, as a layer norm does and an RMS norm does not.
        eps: what it adds to the variance; None for torch's own of an RMS norm.
        inside: the precision in which it norms, whatever it is given. It scales in the given one then.
    """

    axis: int
    centred: bool
    eps: float | None
    inside: torch.dtype | None = None

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, whole: int) -> Tensor:
        """The norm of a tensor that has some of the channels, the others of which are zero.

        Args:
            x: the tensor.
            weight: the scale of each channel that it has.
            bias: their shift.
            whole: how many channels there are with the others.
        """
        share, given = weight.numel() / whole, x.dtype
        if self.inside is not None:
            x = x.to(self.inside)
        elif given in (torch.float16, torch.bfloat16):
            x = x.float()
        eps = torch.finfo(given).eps if self.eps is None else self.eps
        away = 0.0  # from the mean, squared: of the others
        if self.centred:
            mean = share * x.mean(self.axis, keepdim=True)
            x, away = x - mean, (1 - share) * mean.square()
        # The length is read in one pass, where squares would be written first.
        squares = torch.linalg.vector_norm(x, dim=self.axis, keepdim=True).square()
        x = x * torch.rsqrt(squares / whole + away + eps)
        weight = _along(self.axis, weight, x.ndim)
        if self.inside is not None:
            x = weight * x.to(given)
            return x if bias is None else x + _along(self.axis, bias, x.ndim)
        x = x * weight if bias is None else torch.addcmul(_along(self.axis, bias, x.ndim), x, weight)
        return x.to(given)


@dataclass(frozen=True)
class ResponseForm:
    """What a global response norm computes, as that of ConvNeXt V2.

    Each channel of an image is multiplied by how large it is beside the mean of all of them.

    Args:
        axis: along which the channels lie, 1 or -1.
        eps: what it adds to the mean.
    """

    axis: int
    eps: float

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, whole: int) -> Tensor:
        """As of `NormForm`."""
        places = [axis for axis in range(1, x.ndim) if axis != self.axis % x.ndim]
        sizes = torch.linalg.vector_norm(x, dim=places, keepdim=True)
        mean = weight.numel() / whole * sizes.mean(self.axis, keepdim=True)
        scaled = x + _along(self.axis, weight, x.ndim) * (x * (sizes / (mean + self.eps)))
        return scaled if bias is None else scaled + _along(self.axis, bias, x.ndim)


def _along(axis: int, vector: Tensor, ndim: int) -> Tensor:
    shape = [1] * ndim
    shape[axis] = -1
    return vector.reshape(shape)
