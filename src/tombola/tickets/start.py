"""Where a ticket starts: an initialisation that its task rebuilds from a seed, or stored values."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.tickets.tensor_names import parameters_of
from tombola.tickets.tensors import digest_of, tensors_of

InitialWeights = Literal["own", "signed-constant", "kaiming-normal"]
INITIAL_WEIGHTS: tuple[InitialWeights, ...] = ("own", "signed-constant", "kaiming-normal")


@dataclass(frozen=True)
class Seed:
    """Start from the task's own initialisation with this seed; `digest` is that of the values it must give.

    weights: what then takes the place of the weights that the ticket masks: nothing (`own`); √(2 / fan-in) with the
    signs that they have (`signed-constant`); a normal draw of that deviation from the seed (`kaiming-normal`). With
    other weights than its own, the network's held parameters are neutral: a norm's scale 1, all else 0.
    """

    seed: int
    digest: str
    weights: InitialWeights = "own"

    @staticmethod
    def of(
        model: nn.Module,
        seed: int,
        weights: InitialWeights = "own",
        names: Collection[str] = (),
        held: Collection[str] = (),
    ) -> Seed:
        """The start of a model that was just built from a seed, after putting these weights into it.

        names: the parameters that the weights replace; held: those that become neutral with them.
        """
        overlay(model, seed, weights, names, held)
        return Seed(seed, digest_of(tensors_of(model)), weights)


@torch.no_grad()
def overlay(
    model: nn.Module, seed: int, weights: InitialWeights, names: Collection[str], held: Collection[str]
) -> None:
    """Replace the named weights of a freshly built model, and make its held parameters neutral."""
    if weights not in INITIAL_WEIGHTS:
        raise TombolaError(f"there are no initial weights '{weights}'; give one of {', '.join(INITIAL_WEIGHTS)}")
    if weights == "own":
        return
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in parameters_of(model).items():
        if name in held:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        elif name in names:
            deviation = math.sqrt(2 / _fan_in(parameter))
            if weights == "signed-constant":
                parameter.copy_(torch.where(parameter < 0, -deviation, deviation))
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)


def _fan_in(weight: Tensor) -> int:
    return math.prod(weight.shape[1:]) if weight.ndim > 1 else len(weight)


@dataclass(frozen=True, eq=False)
class Values:
    """Start from stored parameters and buffers.

    what: which values they are, as "500it", "2ep", "end" or "transformed"; epochs_spent: the training, in
    epochs of the task, that went into them and that a fair dense control gets too.
    """

    tensors: Mapping[str, Tensor]
    what: str
    epochs_spent: float = 0.0

    def __post_init__(self) -> None:
        snapshot = {name: tensor.detach().cpu().clone() for name, tensor in self.tensors.items()}
        object.__setattr__(self, "tensors", MappingProxyType(snapshot))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Values):
            return NotImplemented
        mine = (self.what, self.epochs_spent, self.digest)
        return mine == (other.what, other.epochs_spent, other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self):
        return Values, (dict(self.tensors), self.what, self.epochs_spent)

    @property
    def digest(self) -> str:
        return digest_of(self.tensors)
