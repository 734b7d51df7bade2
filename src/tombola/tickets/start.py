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
from tombola.tickets.sharding import own_part, part_like, whole
from tombola.tickets.tensor_names import parameters_of
from tombola.tickets.tensors import digest_of, tensors_of

InitialWeights = Literal["own", "signed-constant", "kaiming-normal"]
INITIAL_WEIGHTS: tuple[InitialWeights, ...] = ("own", "signed-constant", "kaiming-normal")


@dataclass(frozen=True)
class Seed:
    """Start from the initialisation that the task builds from a seed.

    Args:
        seed: what the task's `build` is called with.
        digest: a fingerprint of the values that must result, checked before the ticket trains.
        weights: what replaces the weights that the ticket masks: nothing (`own`); √(2 / fan-in) with the sign of each
            weight (`signed-constant`); or a normal draw of that deviation, from the seed (`kaiming-normal`). Where they
            are replaced, the ticket's held parameters become neutral: a norm's scale 1, all else 0.
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
        """The start of a model that was just built from a seed; puts the weights into that model.

        Args:
            model: the model, changed in place unless `weights` is `own`.
            seed: the seed that it was built from.
            weights: see `Seed`.
            names: the parameters that the weights replace.
            held: the parameters that become neutral with them.
        """
        overlay(model, seed, weights, names, held)
        return Seed(seed, digest_of(tensors_of(model)), weights)


@torch.no_grad()
def overlay(
    model: nn.Module, seed: int, weights: InitialWeights, names: Collection[str], held: Collection[str]
) -> None:
    """Replace weights of a freshly built model, in place, and make its held parameters neutral.

    Args:
        model: the model.
        seed: what a random draw starts from.
        weights: see `Seed`; nothing happens for `own`.
        names: the parameters that are replaced.
        held: the parameters that become neutral.
    """
    if weights not in INITIAL_WEIGHTS:
        raise TombolaError(f"there are no initial weights '{weights}'; give one of {', '.join(INITIAL_WEIGHTS)}")
    if weights == "own":
        return
    generator = torch.Generator().manual_seed(seed)  # of its own, so that torch's random state stays
    for name, parameter in parameters_of(model).items():
        own = own_part(parameter)
        if name in held:
            own.fill_(1.0 if name.endswith("weight") else 0.0)
        elif name in names:
            if parameter.is_complex():
                raise TombolaError(f"'{name}' is complex, and {weights} weights are real; give weights='own'")
            deviation = math.sqrt(2 / _fan_in(parameter))
            if weights == "signed-constant":
                own.copy_(torch.where(own < 0, -deviation, deviation))
            else:
                own.copy_(part_like(torch.randn(parameter.shape, generator=generator) * deviation, parameter))


def _fan_in(weight: Tensor) -> int:
    return math.prod(weight.shape[1:]) if weight.ndim > 1 else len(weight)


@dataclass(frozen=True, eq=False)
class Values:
    """Start from stored parameters and buffers.

    Args:
        tensors: by plain names; they are copied to the CPU, whole, so that all processes of a sharded network make them
            together.
        what: which values they are, as "500it", "2ep", "end" or "transformed".
        epochs_spent: the training that went into them, in epochs of the task; a fair dense control gets it too.
    """

    tensors: Mapping[str, Tensor]
    what: str
    epochs_spent: float = 0.0

    def __post_init__(self) -> None:
        snapshot = {name: whole(tensor).cpu().clone() for name, tensor in self.tensors.items()}
        object.__setattr__(self, "tensors", MappingProxyType(snapshot))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Values):
            return NotImplemented
        return (self.what, self.epochs_spent, self.digest) == (other.what, other.epochs_spent, other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self):
        # A mappingproxy cannot be pickled.
        return Values, (dict(self.tensors), self.what, self.epochs_spent)

    @property
    def digest(self) -> str:
        """A fingerprint of the values."""
        return digest_of(self.tensors)
