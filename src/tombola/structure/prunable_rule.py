"""Which parameters of a network can be pruned."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from tombola.errors import TombolaError
from tombola.tickets import parameters_of

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


@dataclass(frozen=True)
class Prunable:
    """The rule for what may be pruned: by default each convolution and linear weight, and no bias or norm.

    The first and the last layer are included.

    Args:
        include: shell patterns; a parameter's name must match one.
        exclude: shell patterns; a parameter whose name matches one is left out, even if it is included.
        types: the types of module whose weights may be pruned.

    Examples:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        >>> list(Prunable(exclude=("1.*",))(model))
        ['0.weight']
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    types: tuple[type[nn.Module], ...] = WEIGHTED

    def __call__(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The prunable parameters by name, in the network's order; a tied one is listed once.

        Raises:
            TombolaError: if there are none.
        """
        named = parameters_of(model)
        weights = self._weights_of(model)
        parameters = {
            name: parameter for name, parameter in named.items() if id(parameter) in weights and self._matches(name)
        }
        if not parameters:
            raise TombolaError(
                "the network has nothing to prune: no convolution or linear weight matches "
                f"include={self.include}, exclude={self.exclude}; name its parameters with Prunable(include=…, types=…)"
            )
        return parameters

    def _matches(self, name: str) -> bool:
        return any(fnmatchcase(name, p) for p in self.include) and not any(fnmatchcase(name, p) for p in self.exclude)

    def _weights_of(self, model: nn.Module) -> set[int]:
        return {
            id(parameter)
            for module in model.modules()
            if isinstance(module, self.types)
            for name, parameter in module.named_parameters(recurse=False)
            if name.endswith("weight")
        }


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are pruned by default: convolution and linear weights, by name.

    Examples:
        >>> list(prunable(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))))
        ['0.weight']
    """
    return Prunable()(model)
