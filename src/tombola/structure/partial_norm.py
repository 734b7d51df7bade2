"""Layer and RMS norms that have lost channels and compute what they did with zeros in these channels' places."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tombola.tickets.torch_private import own_buffers, own_parameters

SAME = 1e-12
"""The largest difference of what a norm of a class of its own gives from what it would give as a plain norm."""


@dataclass(frozen=True)
class NormForm:
    """What a norm over the channels of each place computes.

    Args:
        axis: along which the channels lie, 1 or -1.
        centred: whether it subtracts the mean, as a layer norm does and an RMS norm does not.
        eps: what it adds to the variance; None for torch's own of an RMS norm.
    """

    axis: int
    centred: bool
    eps: float | None

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, whole: int) -> Tensor:
        """The norm of a tensor that has some of the channels, the others of which are zero.

        Args:
            x: the tensor.
            weight: the scale of each channel that it has.
            bias: their shift.
            whole: how many channels there are with the others.
        """
        shape = [1] * x.ndim
        shape[self.axis] = -1
        share, given = len(weight) / whole, x.dtype
        x = x.float() if given in (torch.float16, torch.bfloat16) else x
        eps = torch.finfo(given).eps if self.eps is None else self.eps
        away = 0.0  # from the mean, squared: of the others
        if self.centred:
            mean = share * x.mean(self.axis, keepdim=True)
            x, away = x - mean, (1 - share) * mean.square()
        x = x * torch.rsqrt(share * x.square().mean(self.axis, keepdim=True) + away + eps)
        weight = weight.reshape(shape)
        x = x * weight if bias is None else torch.addcmul(bias.reshape(shape), x, weight)
        return x.to(given)


class PartialNorm(nn.Module):
    """A layer or RMS norm over some of a number of channels, the others of which are zero.

    It divides by the number of all of them, so that it gives what the norm of all gives for those that are there. Its
    parameters have the norm's names.

    Args:
        weight: the scale of the channels that are there.
        bias: their shift.
        form: what the norm computes.
        whole: how many channels it is of.

    Examples:
        >>> x = torch.tensor([[1.0, 2.0, 0.0]])
        >>> norm = PartialNorm(nn.Parameter(torch.ones(2)), None, NormForm(-1, True, 1e-5), 3)
        >>> torch.allclose(norm(x[:, :2]), nn.LayerNorm(3)(x)[:, :2])
        True
    """

    bias: nn.Parameter | None

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, form: NormForm, whole: int) -> None:
        super().__init__()
        self.weight, self.form, self.whole = weight, form, whole
        self.register_parameter("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Norm the channels that are there, as the others are zero."""
        return self.form(x, self.weight, self.bias, self.whole)

    def extra_repr(self) -> str:
        """The sizes, as torch prints them."""
        kind = "layer norm" if self.form.centred else "RMS norm"
        return f"{len(self.weight)} of {self.whole}, {kind}, axis={self.form.axis}, eps={self.form.eps}"


def norm_form(module: Any) -> NormForm | None:
    """What a module computes if it is a layer or RMS norm with a scale; None for all others.

    A class of its own, as those that take images, is tried on random numbers.

    Examples:
        >>> norm_form(nn.LayerNorm(3))
        NormForm(axis=-1, centred=True, eps=1e-05)
        >>> norm_form(nn.LayerNorm(3, elementwise_affine=False)), norm_form(nn.LayerNorm((2, 3)))
        (None, None)
    """
    if isinstance(module, PartialNorm):
        return module.form
    if not isinstance(module, nn.Module) or "norm" not in type(module).__name__.lower():
        return None
    own = {name: tensor for name, tensor in own_parameters(module).items() if tensor is not None}
    shapes = {tuple(tensor.shape) for tensor in own.values()}
    if "weight" not in own or not own.keys() <= {"weight", "bias"} or len(shapes) > 1 or own["weight"].ndim != 1:
        return None
    eps: Any = next((vars(module)[name] for name in ("eps", "variance_epsilon") if name in vars(module)), None)
    if type(module) in (nn.LayerNorm, nn.RMSNorm):
        return NormForm(-1, type(module) is nn.LayerNorm, eps)
    known = type(module).__module__.startswith("torch.") or bool(own_buffers(module))
    if known or not isinstance(eps, float) or any(True for _ in module.children()):
        return None
    forms = (NormForm(axis, centred, eps) for axis in (-1, 1) for centred in (True, False))
    return next((form for form in forms if _computes(module, form)), None)


@torch.no_grad()
def _computes(module: nn.Module, form: NormForm) -> bool:
    """Whether a norm gives what a plain one of this form gives, in double precision."""
    twin: Any = copy.deepcopy(module).to_empty(device="cpu").double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in twin.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    size = len(twin.weight)
    shape = (2, size, 3, 4) if form.axis == 1 else (2, 3, size)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    try:
        given = type(twin).forward(twin, x)
        expected = form(x, twin.weight, getattr(twin, "bias", None), size)
        return given.dtype == x.dtype and bool(torch.allclose(given, expected, rtol=0, atol=SAME))
    except Exception:  # it takes other tensors
        return False
