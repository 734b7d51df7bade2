"""Norms of all channels that have lost some and compute what they did with zeros in these channels' places."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn

from tombola.structure.double_precision import AllInDouble
from tombola.structure.norm_forms import NormForm, ResponseForm
from tombola.tickets.torch_private import own_buffers, own_parameters

SAME, SAME_SINGLE = 1e-12, 1e-5
"""The largest difference of what a norm of a class of its own gives from what a form says, in each precision."""

RESPONSE_EPS = 1e-6
"""What a global response norm adds whose class has it written in its code."""

Form = NormForm | ResponseForm


class PartialNorm(nn.Module):
    """A layer, RMS or global response norm over some of a number of channels, the others of which are zero.

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

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, form: Form, whole: int) -> None:
        super().__init__()
        self.weight, self.form, self.whole = weight, form, whole
        self.register_parameter("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Norm the channels that are there, as the others are zero."""
        return self.form(x, self.weight, self.bias, self.whole)

    def extra_repr(self) -> str:
        """The sizes, as torch prints them."""
        return f"{self.weight.numel()} of {self.whole}, {self.form}"


def norm_form(module: Any) -> Form | None:
    """What a module computes if it is a layer, RMS or global response norm with a scale; None for all others.

    A class of its own is tried on random numbers, as those that take images or compute in float32.

    Examples:
        >>> norm_form(nn.LayerNorm(3))
        NormForm(axis=-1, centred=True, eps=1e-05, inside=None)
        >>> norm_form(nn.LayerNorm(3, elementwise_affine=False)), norm_form(nn.LayerNorm((2, 3)))
        (None, None)
    """
    if isinstance(module, PartialNorm):
        return module.form
    if not isinstance(module, nn.Module) or any(True for _ in module.children()):
        return None
    own = {name: tensor for name, tensor in own_parameters(module).items() if tensor is not None}
    shapes = {tuple(tensor.shape) for tensor in own.values()}
    if "weight" not in own or not own.keys() <= {"weight", "bias"} or len(shapes) > 1:
        return None
    if not own["weight"].ndim or own["weight"].numel() != own["weight"].shape[-1] or own_buffers(module):
        return None
    eps: Any = next((vars(module)[name] for name in ("eps", "variance_epsilon") if name in vars(module)), None)
    if type(module) in (nn.LayerNorm, nn.RMSNorm):
        return NormForm(-1, type(module) is nn.LayerNorm, eps)
    return None if type(module).__module__.startswith("torch.") else _known(module, eps)


_forms: dict[tuple[object, ...], Form | None] = {}
"""The forms of norms that were tried: a network has many that are alike, and is asked for them many times."""


def _known(module: Any, eps: Any) -> Form | None:
    settings = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
    if not all(isinstance(value, str | int | float | tuple | NoneType) for value in settings.values()):
        return _tried(module, eps)
    key = (type(module), module.weight.shape, getattr(module, "bias", None) is None, repr(sorted(settings.items())))
    if key not in _forms:
        _forms[key] = _tried(module, eps)
    return _forms[key]


@torch.no_grad()
def _tried(module: nn.Module, eps: Any) -> Form | None:
    """The form of a norm of a class of its own, by what it gives in double precision; None if it has none."""
    twin: Any = copy.deepcopy(module).to_empty(device="cpu").double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in twin.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    size = twin.weight.numel()
    forms: list[tuple[Form, tuple[int, ...]]] = [
        (ResponseForm(axis, eps if isinstance(eps, float) else RESPONSE_EPS), shape)
        for axis, shape in ((-1, (2, 3, 4, size)), (1, (2, size, 3, 4)))
    ]
    if isinstance(eps, float):
        shapes = ((-1, (2, 3, size)), (1, (2, size, 3, 4)))
        forms = [(NormForm(axis, centred, eps), shape) for axis, shape in shapes for centred in (True, False)] + forms
    for form, shape in forms:
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        x[1] *= 1e-4  # so small that what is added to the statistics shows
        with AllInDouble():
            found = _gives(twin, form, x, SAME)
        if not found:
            continue
        if _gives(twin, form, x, SAME):
            return form
        single = replace(form, inside=torch.float32) if isinstance(form, NormForm) else form
        return single if _gives(twin, single, x, SAME_SINGLE) else None
    return None


def _gives(twin: Any, form: Form, x: Tensor, same: float) -> bool:
    try:
        given = type(twin).forward(twin, x)
        expected = form(x, twin.weight, getattr(twin, "bias", None), twin.weight.numel())
        return given.dtype == x.dtype and bool(torch.allclose(given, expected, rtol=0, atol=same))
    except Exception:  # it takes other tensors
        return False
