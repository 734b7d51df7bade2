"""The head of a network: the layers that turn what its body makes of an input into the outputs of one task."""

from __future__ import annotations

from typing import Any

from torch import nn

from tombola.structure.parameter_roles import WEIGHTED
from tombola.tickets import joined, modules_of, parameters_of


def head_parameters(model: nn.Module) -> tuple[str, ...]:
    """The names of the parameters of a network's head.

    A model of Hugging Face says what its body is (`base_model_prefix`), and the head is what stands beside that. Of
    another network it is the layer that is listed last.

    Args:
        model: the network.

    Returns:
        The names; what body and head share counts as the body's.

    Examples:
        >>> head_parameters(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
        ('2.weight', '2.bias')
    """
    names = tuple(parameters_of(model))
    for name, module in modules_of(model).items():
        prefix: Any = getattr(module, "base_model_prefix", None)
        if isinstance(prefix, str) and prefix in dict(module.named_children()):
            body, owner = joined(name, prefix), f"{name}." if name else ""
            head = tuple(own for own in names if own.startswith(owner) and not own.startswith(f"{body}."))
            if head:
                return head
    layers = [name for name, module in modules_of(model).items() if isinstance(module, WEIGHTED)]
    return tuple(own for own in names if layers and own.rpartition(".")[0] == layers[-1])
