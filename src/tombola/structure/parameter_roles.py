"""What each parameter of a network is for its layer: a weight, what a weight is computed from, or something else."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from tombola.structure.layers import CONVOLUTIONS, is_transposed_linear
from tombola.structure.recurrent_layers import RECURRENT
from tombola.structure.tracer import Multiplied

WEIGHTED = (
    nn.Linear,
    nn.Bilinear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.MultiheadAttention,
)
EXPERTS = ("gate_up_proj", "down_proj", "gate_proj", "up_proj", "w1", "w2", "w3", "wi", "wo")
"""What networks call the weights of their experts, stacked along the first of three dimensions."""
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
Role = Literal["weight", "original", "mixed", "embedding"]
"""weight: multiplied with inputs. embedding: multiplied with inputs, and the rows of an embedding too.

original: a weight is computed from it, and zeros of it are zeros of the weight. mixed: a weight is computed from it,
and its zeros mean nothing there, as in a convolution that standardises its weight, or a unit of zeros is not a number,
as in weight norm, which divides by its length.
"""

HOOKED: dict[str, Role] = {"weight_orig": "original", "weight_v": "mixed"}
"""The parameters from which torch's older spectral norm, pruning and weight norm compute a layer's weight."""


def roles_of(model: nn.Module) -> dict[int, Role]:
    """The role of each parameter that has one of these roles, by the parameter's id.

    Args:
        model: the network.

    Examples:
        >>> normed = nn.utils.parametrizations.spectral_norm(nn.Linear(2, 3))
        >>> roles = roles_of(normed)
        >>> [roles.get(id(parameter)) for parameter in normed.parameters()]
        [None, 'original']
    """
    roles: dict[int, Role] = {
        id(parameter): role for module in model.modules() for parameter, role in _roles_in(module)
    }
    for embedding in (module for module in model.modules() if isinstance(module, EMBEDDINGS)):
        roles |= {id(own): "embedding" for own in embedding.parameters(recurse=False) if id(own) in roles}
    return roles


def _roles_in(module: nn.Module) -> Iterator[tuple[nn.Parameter, Role]]:
    if isinstance(module, ParametrizationList):
        largest = max(module.parameters(recurse=False), key=torch.numel, default=None)
        if largest is not None and largest.ndim > 1:
            yield largest, "original" if _keeps_zeros(module) else "mixed"
        return
    for name, parameter in module.named_parameters(recurse=False):
        if _is_weight(module, name, parameter):
            yield parameter, "weight" if name != "weight" or _is_weight_used(module) else "mixed"
        elif isinstance(module, WEIGHTED) and name in HOOKED:
            yield parameter, HOOKED[name]


def _is_weight(module: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    if isinstance(module, WEIGHTED):
        return name.endswith("weight")
    if isinstance(module, RECURRENT):
        return name.startswith("weight")
    if name == "weight" and is_transposed_linear(module):
        return True
    return name in EXPERTS and parameter.ndim == 3


_used_by_type: dict[type, bool] = {}


def _is_weight_used(module: nn.Module) -> bool:
    """Whether a layer of a class of its own multiplies its inputs with its weight, or keeps its zeros at least.

    One that standardises its weight does not: it multiplies with something else, whose zeros are others.
    """
    kind = type(module)
    if not isinstance(module, (nn.Linear, *CONVOLUTIONS)) or kind.__module__.startswith("torch."):
        return True
    if kind not in _used_by_type:
        _used_by_type[kind] = _uses_weight(module)
    return _used_by_type[kind]


@torch.no_grad()
def _uses_weight(module: nn.Module) -> bool:
    twin = copy.deepcopy(module).cpu().float().eval()
    weight: Tensor = twin.weight  # ty: ignore[invalid-assignment]
    generator = torch.Generator().manual_seed(0)
    weight.copy_(torch.randn(weight.shape, generator=generator))
    weight[torch.rand(weight.shape, generator=generator) < 0.5] = 0.0
    sizes = [max(8, size) for size in weight.shape[2:]]
    size = int(twin.in_features if isinstance(twin, nn.Linear) else twin.in_channels)  # ty: ignore[invalid-argument-type]
    with Multiplied() as seen:
        try:
            twin(torch.ones(1, size, *sizes))
        except Exception:  # it takes something else than a tensor; then nothing is known
            return True
    alike = [own for own in seen.weights if own.numel() == weight.numel()]
    zeros = int((weight == 0).sum())
    return not alike or any(int((own == 0).sum()) == zeros for own in alike)


_zero_keeping: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def _keeps_zeros(parametrization: ParametrizationList) -> bool:
    """Whether a zero of the original is a zero of the weight, and no other place becomes one: by trying it once."""
    if parametrization not in _zero_keeping:
        _zero_keeping[parametrization] = _tries_zeros(parametrization)
    return _zero_keeping[parametrization]


@torch.no_grad()
def _tries_zeros(parametrization: ParametrizationList) -> bool:
    twin = copy.deepcopy(parametrization).cpu().float().eval()
    original: Tensor = max(twin.parameters(recurse=False), key=torch.numel)
    generator = torch.Generator().manual_seed(0)
    original.copy_(torch.randn(original.shape, generator=generator))
    dead = torch.rand(original.shape, generator=generator) < 0.5
    dead[0] = True  # a unit without any weight
    original[dead] = 0.0
    weight = twin()
    return weight.shape == original.shape and torch.equal(weight == 0, dead)
