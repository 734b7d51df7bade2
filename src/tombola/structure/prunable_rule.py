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
    """The rule for what may be pruned: weights of modules of these types whose names match.

    include, exclude: shell patterns over parameter names; exclude wins. By default every convolution and
    linear weight, first and last layer included, and no bias or norm.
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    types: tuple[type[nn.Module], ...] = WEIGHTED

    def __call__(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The prunable parameters by name, in network order, a shared one once; TombolaError if there are none."""
        weights = self._weights_of(model)
        found = {
            name: parameter
            for name, parameter in parameters_of(model).items()
            if id(parameter) in weights and self._matches(name)
        }
        if not found:
            raise TombolaError(
                "the network has nothing to prune: no convolution or linear weight matches "
                f"include={self.include}, exclude={self.exclude}; name its parameters with Prunable(include=…, types=…)"
            )
        return found

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
    """The parameters that are pruned by default: convolution and linear weights, by name."""
    return Prunable()(model)
