"""The mask: which weights of a network are kept, as immutable data."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.tickets.sharding import whole

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Bits:
    """One tensor's kept positions, packed.

    Args:
        shape: the tensor's shape.
        packed: one bit a position in row-major order, 1 = kept; the last byte is padded with zeros.
    """

    shape: Shape
    packed: bytes

    @staticmethod
    def of(kept: np.ndarray) -> Bits:
        """The packed form of a bool array."""
        return Bits(tuple(kept.shape), np.packbits(kept.reshape(-1)).tobytes())

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def kept(self) -> int:
        return int(np.bitwise_count(np.frombuffer(self.packed, np.uint8)).sum())

    def array(self) -> np.ndarray:
        """A fresh, writable bool array of the tensor's shape."""
        flat = np.unpackbits(np.frombuffer(self.packed, np.uint8), count=self.size)
        return flat.view(np.bool_).reshape(self.shape)


@dataclass(frozen=True)
class Mask(Mapping[str, Tensor]):
    """Which positions of which parameters are kept: immutable, packed to one bit a weight.

    A mask is a mapping: indexing it by a parameter's name gives a fresh bool tensor of the parameter's shape, True =
    kept. `~mask`, `a & b`, `a | b`, `a ^ b` and `a - b` work position by position; `a <= b` says whether `a` is nested
    in `b`. `Mask.of` and `Mask.full` make masks; `tombola.select` makes one from scores.

    Args:
        bits: the packed positions of each parameter, by its name.
        ties: how many of the kept units a hash preferred over dropped units of equal score.

    Examples:
        >>> mask = Mask.of({"fc.weight": torch.tensor([[True, False], [True, True]])})
        >>> mask
        Mask(3 of 4 kept in 1 tensors, density 0.75)
        >>> mask["fc.weight"].tolist()
        [[True, False], [True, True]]
        >>> (~mask).density, mask.distance(~mask)
        (0.25, 1.0)
    """

    bits: Mapping[str, Bits]
    ties: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", MappingProxyType(dict(self.bits)))

    @staticmethod
    def of(tensors: Mapping[str, Tensor], ties: int = 0) -> Mask:
        """The mask that keeps what is True (or non-zero) in each tensor.

        Args:
            tensors: one tensor a parameter, by its name, of the parameter's shape.
            ties: see `Mask`.

        Raises:
            TombolaError: if a tensor is sparse or has no values.
        """
        return Mask({name: Bits.of(_nonzero(name, tensor)) for name, tensor in tensors.items()}, ties)

    @staticmethod
    def full(shapes: Mapping[str, Tensor | Shape]) -> Mask:
        """The mask that keeps every position.

        Args:
            shapes: the parameters, or their shapes, by name.
        """
        plain = {name: tuple(s.shape) if isinstance(s, Tensor) else s for name, s in shapes.items()}
        return Mask({name: Bits.of(np.ones(shape, bool)) for name, shape in plain.items()})

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.bits[name].array())

    def __contains__(self, name: object) -> bool:
        return name in self.bits

    def __iter__(self) -> Iterator[str]:
        return iter(self.bits)

    def __len__(self) -> int:
        return len(self.bits)

    def __eq__(self, other: object) -> bool:
        return dict(self.bits) == dict(other.bits) if isinstance(other, Mask) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Mask({self.total_kept:,} of {self.size:,} kept in {len(self)} tensors, density {self.density:.4g})"

    def __reduce__(self):
        # A mappingproxy cannot be pickled.
        return Mask, (dict(self.bits), self.ties)

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of each tensor."""
        return {name: bits.shape for name, bits in self.bits.items()}

    @property
    def size(self) -> int:
        """The number of positions in all tensors together."""
        return sum(bits.size for bits in self.bits.values())

    def density_of(self, parameters: Mapping[str, Tensor]) -> float:
        """The kept share of a whole network: what the mask does not name stays, as biases and layers left out.

        Args:
            parameters: all of the network's, by name.

        Examples:
            >>> mask = Mask.of({"weight": torch.tensor([[True, False]])})
            >>> mask.density, mask.density_of({"weight": torch.ones(1, 2), "bias": torch.ones(2)})
            (0.5, 0.75)
        """
        total = sum(parameter.numel() for parameter in parameters.values())
        return 1.0 - (self.size - self.total_kept) / total

    @property
    def total_kept(self) -> int:
        """The number of kept positions in all tensors together."""
        return sum(bits.kept for bits in self.bits.values())

    @property
    def density(self) -> float:
        """Kept share of all positions, in [0, 1]."""
        return self.total_kept / self.size if self.size else 0.0

    @property
    def counts(self) -> dict[str, int]:
        """The number of kept positions of each tensor."""
        return {name: bits.kept for name, bits in self.bits.items()}

    @property
    def collapsed(self) -> tuple[str, ...]:
        """The names of the tensors that keep nothing."""
        return tuple(name for name, count in self.counts.items() if count == 0)

    @property
    def digest(self) -> str:
        """A fingerprint of names, shapes and bits."""
        content = hashlib.blake2b(digest_size=16)
        for name, bits in sorted(self.bits.items()):
            content.update(f"{name}{bits.shape}".encode())
            content.update(bits.packed)
        return content.hexdigest()

    def kept(self, name: str) -> int:
        """The number of kept positions of one tensor."""
        return self.bits[name].kept

    def distance(self, other: Mask) -> float:
        """Normalised Hamming distance: the share of all positions in which the two masks differ, in [0, 1]."""
        return (self ^ other).density

    def shuffled(self, seed: int) -> Mask:
        """The mask with each tensor's positions permuted at random within that tensor, so that its count stays."""
        generator = np.random.default_rng(seed)
        return Mask(
            {name: Bits.of(generator.permuted(b.array().reshape(-1)).reshape(b.shape)) for name, b in self.bits.items()}
        )

    def __invert__(self) -> Mask:
        return Mask({name: Bits.of(~bits.array()) for name, bits in self.bits.items()})

    def __and__(self, other: Mask) -> Mask:
        """What both keep. A parameter that only one of them has is whole in the other, as biases in one of weights."""
        common = self.bits.keys() & other.bits.keys()
        if not common and self.bits and other.bits:
            raise TombolaError(
                f"the two masks do not belong to one network: '{next(iter(self))}' is in one and "
                f"'{next(iter(other))}' in the other, and no parameter in both; give masks of one network"
            )
        parts = [Mask({name: bits for name, bits in own.bits.items() if name in common}) for own in (self, other)]
        return Mask({**self.bits, **other.bits, **parts[0]._combine(parts[1], np.bitwise_and).bits})

    def __or__(self, other: Mask) -> Mask:
        return self._combine(other, np.bitwise_or)

    def __xor__(self, other: Mask) -> Mask:
        return self._combine(other, np.bitwise_xor)

    def __sub__(self, other: Mask) -> Mask:
        return self._combine(~other, np.bitwise_and)

    def __le__(self, other: Mask) -> bool:
        """Whether this mask is nested in the other: keeps nothing that the other drops."""
        return (self - other).total_kept == 0

    def _combine(self, other: Mask, operation: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Mask:
        if self.shapes != other.shapes:
            name = next(n for n in [*self, *other] if self.shapes.get(n) != other.shapes.get(n))
            raise TombolaError(
                f"the two masks do not belong to one network: '{name}' is {self.shapes.get(name)} in one "
                f"and {other.shapes.get(name)} in the other; compare masks of the same parameters"
            )
        # `~` pads anew, so a mask's padding is always zero, and none of these operations sets it.
        bytewise = {
            name: operation(np.frombuffer(bits.packed, np.uint8), np.frombuffer(other.bits[name].packed, np.uint8))
            for name, bits in self.bits.items()
        }
        return Mask({name: Bits(self.bits[name].shape, array.tobytes()) for name, array in bytewise.items()})


def _nonzero(name: str, tensor: Tensor) -> np.ndarray:
    """Where a tensor is True or non-zero."""
    try:
        values = whole(tensor)
        if values.dtype.itemsize == 1 and values.is_floating_point():
            values = values.float()  # float8 cannot be compared
        # torch compares, because NumPy lacks some of its types, such as bfloat16.
        return (values if values.dtype == torch.bool else values != 0).cpu().numpy()
    except (AttributeError, RuntimeError, TypeError) as error:
        attributes = (getattr(tensor, attribute, None) for attribute in ("dtype", "layout", "device"))
        kind = " ".join([type(tensor).__name__, *(str(value) for value in attributes if value is not None)])
        raise TombolaError(
            f"no mask can be made of '{name}', a {kind}; give a dense tensor of truths or numbers that has values"
        ) from error
