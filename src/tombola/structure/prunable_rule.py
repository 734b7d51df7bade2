"""Which parameters of a network can be pruned."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from tombola.errors import TombolaError
from tombola.fields import LATER
from tombola.structure.output_head import head_parameters
from tombola.structure.parameter_roles import EMBEDDINGS, WEIGHTED, roles_of
from tombola.tickets import parameters_of


class LeftOutWarning(UserWarning):
    """The usual rule leaves a large part of a network alone."""


@dataclass(frozen=True)
class Prunable:
    """The rule for what may be pruned: by default each weight of a layer, and no bias, norm or embedding.

    Layers are convolutions, linear and recurrent layers, attention, the `Conv1D` of transformers and stacked experts;
    the first and the last one are included. A layer with spectral norm is pruned in the parameter that its weight is
    computed from; one with weight norm, an orthogonal one, or one that standardises its weight, is left out. So is the
    weight of a last layer that is an embedding too. With an `include` or `types` of your own,
    any parameter of two or more dimensions that they name may be pruned, and the one-dimensional weights of these
    types, as the scales of norms.

    Args:
        include: shell patterns; a parameter's name must match one.
        exclude: shell patterns; a parameter whose name matches one is left out, even if it is included.
        types: the types of module whose parameters may be pruned.
        biases: whether the biases of the layers that are chosen may be pruned too, one number at a time, as in SNIP's
            first code. A bias of 0 has a sensitivity of 0.

    Examples:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        >>> list(Prunable(exclude=("1.*",))(model))
        ['0.weight']
        >>> list(Prunable(include=("weight_hh_l0",))(nn.LSTM(2, 3)))
        ['weight_hh_l0']
        >>> list(Prunable(exclude=("1.*",), biases=True)(model))
        ['0.weight', '0.bias']
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    types: tuple[type[nn.Module], ...] = WEIGHTED
    biases: bool = field(default=False, metadata=LATER)
    head: bool = field(default=True, metadata=LATER)

    def __call__(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The prunable parameters by name, in the network's order; a tied one is listed once.

        A LeftOutWarning names what the usual rule leaves out, if that is a tenth of the weights or more.

        Raises:
            TombolaError: if there are none, or one that you name cannot be pruned.
        """
        found = parameters_of(model)
        usual = self.types == WEIGHTED and self.include == ("*",)
        roles = roles_of(model)
        without = () if self.head else head_parameters(model)
        named = {name: p for name, p in found.items() if self._matches(name) and name not in without}
        if usual:
            chosen = {name: p for name, p in named.items() if roles.get(id(p)) in ("weight", "original")}
        else:
            of_types = self._of_types(model)
            chosen = {
                name: p
                for name, p in named.items()
                if (p.ndim > 1 if of_types is None else id(p) in of_types and (p.ndim > 1 or name.endswith("weight")))
            }
            if mixed := [name for name, p in chosen.items() if roles.get(id(p)) == "mixed"]:
                raise TombolaError(
                    f"'{mixed[0]}' cannot be pruned: a weight is computed from it, of which its zeros are no zeros; "
                    "leave it out by exclude=, or remove the parametrization first"
                )
        if not chosen:
            raise TombolaError(
                "the network has nothing to prune: no weight of a layer matches "
                f"include={self.include}, exclude={self.exclude}; name its parameters with Prunable(include=…)"
            )
        if usual and not self.exclude:
            _warn_of_left_out(model, found, chosen)
        if not self.biases:
            return chosen
        biased = self._with_biases(model, found, chosen)
        return {name: p for name, p in biased.items() if name not in without}

    def _with_biases(
        self, model: nn.Module, found: Mapping[str, nn.Parameter], chosen: Mapping[str, nn.Parameter]
    ) -> dict[str, nn.Parameter]:
        """The chosen parameters, and the biases of the modules that hold them, in the network's order."""
        kept = {id(parameter) for parameter in chosen.values()}
        owners = [module for module in model.modules() if any(id(own) in kept for own in _own_and_originals(module))]
        biases = {
            id(own)
            for module in owners
            for name, own in module.named_parameters(recurse=False)
            if own.ndim == 1 and "bias" in name
        }
        matching = {name for name, p in found.items() if id(p) in biases and self._matches_bias(name)}
        return {name: p for name, p in found.items() if name in chosen or name in matching}

    def _matches_bias(self, name: str) -> bool:
        return not any(fnmatchcase(name, pattern) for pattern in self.exclude)

    def _matches(self, name: str) -> bool:
        return any(fnmatchcase(name, p) for p in self.include) and not any(fnmatchcase(name, p) for p in self.exclude)

    def _of_types(self, model: nn.Module) -> set[int] | None:
        """The ids of the parameters of modules of these types; None if `include` alone names what may be pruned."""
        if self.types == WEIGHTED:
            return None
        owners = (module for module in model.modules() if isinstance(module, self.types))
        return {id(own) for module in owners for own in _own_and_originals(module)}


def _own_and_originals(module: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of a module itself, and those that it computes its own from."""
    yield from module.parameters(recurse=False)
    if is_parametrized(module):
        for originals in module.parametrizations.values():  # ty: ignore[not-callable]
            yield from originals.parameters(recurse=False)


def _warn_of_left_out(model: nn.Module, found: Mapping[str, nn.Parameter], chosen: Mapping[str, nn.Parameter]) -> None:
    """Name what is left out, if it is much: a tenth of the weights without embeddings, or most with these."""
    embeddings = {id(own) for m in model.modules() if isinstance(m, EMBEDDINGS) for own in m.parameters(recurse=False)}
    left = {name: p.numel() for name, p in found.items() if p.ndim > 1 and name not in chosen}
    total = sum(p.numel() for p in found.values())
    others = sum(size for name, size in left.items() if id(found[name]) not in embeddings)
    if others >= 0.1 * total or sum(left.values()) >= 0.8 * total:
        largest = sorted(left, key=lambda name: -left[name])
        named = ", ".join(f"'{name}'" for name in largest[:3]) + (" and others" if len(largest) > 3 else "")
        warnings.warn(
            f"{sum(left.values()) / total:.0%} of the network's weights cannot lose any: {named}; name what shall with "
            "Prunable(include=…)",
            LeftOutWarning,
            stacklevel=3,
        )


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are pruned by default: the weights of layers, by name.

    Examples:
        >>> list(prunable(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))))
        ['0.weight']
    """
    return Prunable()(model)
