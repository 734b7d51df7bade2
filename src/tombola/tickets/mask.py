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

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Bits:
    """One tensor's kept positions: its shape, and one bit a position in row-major order, padded with zeros."""

    shape: Shape
    packed: bytes

    @staticmethod
    def of(kept: np.ndarray) -> Bits:
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

    Indexing by parameter name gives a fresh bool tensor of the parameter's shape, True = kept.
    `ties` is how many of the kept units only a hash preferred over others of equal score.

    Examples:
        >>> mask = Mask.of({"fc.weight": torch.tensor([[True, False], [True, True]])})
        >>> mask.density, mask.kept("fc.weight"), (~mask).density
        (0.75, 3, 0.25)
    """

    bits: Mapping[str, Bits]
    ties: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", MappingProxyType(dict(self.bits)))

    @staticmethod
    def of(tensors: Mapping[str, Tensor], ties: int = 0) -> Mask:
        """The mask that keeps what is True (or non-zero) in each tensor."""
        return Mask({name: Bits.of(_nonzero(name, tensor)) for name, tensor in tensors.items()}, ties)

    @staticmethod
    def full(shapes: Mapping[str, Tensor | Shape]) -> Mask:
        """The mask that keeps everything of parameters (or shapes) by name."""
        sized = {name: tuple(s.shape) if isinstance(s, Tensor) else s for name, s in shapes.items()}
        return Mask({name: Bits.of(np.ones(shape, bool)) for name, shape in sized.items()})

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
        return Mask, (dict(self.bits), self.ties)

    @property
    def shapes(self) -> dict[str, Shape]:
        return {name: bits.shape for name, bits in self.bits.items()}

    @property
    def size(self) -> int:
        """Positions in all tensors together."""
        return sum(bits.size for bits in self.bits.values())

    @property
    def total_kept(self) -> int:
        return sum(bits.kept for bits in self.bits.values())

    @property
    def density(self) -> float:
        """Kept share of all positions, in [0, 1]."""
        return self.total_kept / self.size if self.size else 0.0

    @property
    def counts(self) -> dict[str, int]:
        """Kept positions of each tensor."""
        return {name: bits.kept for name, bits in self.bits.items()}

    @property
    def collapsed(self) -> tuple[str, ...]:
        """The tensors of which nothing is kept."""
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
        """How many positions of one tensor are kept."""
        return self.bits[name].kept

    def distance(self, other: Mask) -> float:
        """Normalised Hamming distance: the share of all positions in which the two differ, in [0, 1]."""
        return (self ^ other).density

    def shuffled(self, seed: int) -> Mask:
        """Each tensor's kept positions moved at random within that tensor; its count stays."""
        rng = np.random.default_rng(seed)
        return Mask(
            {name: Bits.of(rng.permuted(b.array().reshape(-1)).reshape(b.shape)) for name, b in self.bits.items()}
        )

    def __invert__(self) -> Mask:
        return Mask({name: Bits.of(~bits.array()) for name, bits in self.bits.items()})

    def __and__(self, other: Mask) -> Mask:
        return self._combine(other, np.bitwise_and)

    def __or__(self, other: Mask) -> Mask:
        return self._combine(other, np.bitwise_or)

    def __xor__(self, other: Mask) -> Mask:
        return self._combine(other, np.bitwise_xor)

    def __sub__(self, other: Mask) -> Mask:
        return self & ~other

    def __le__(self, other: Mask) -> bool:
        """Is this mask nested in the other?"""
        return (self - other).total_kept == 0

    def _combine(self, other: Mask, operation: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Mask:
        if self.shapes != other.shapes:
            odd = next(n for n in [*self, *other] if self.shapes.get(n) != other.shapes.get(n))
            raise TombolaError(
                f"the two masks do not belong to one network: '{odd}' is {self.shapes.get(odd)} in one "
                f"and {other.shapes.get(odd)} in the other; compare masks of the same parameters"
            )
        bytewise = {
            name: operation(np.frombuffer(mine.packed, np.uint8), np.frombuffer(other.bits[name].packed, np.uint8))
            for name, mine in self.bits.items()
        }
        return Mask({name: Bits(self.bits[name].shape, array.tobytes()) for name, array in bytewise.items()})


def _nonzero(name: str, tensor: Tensor) -> np.ndarray:
    """Where a tensor is True or non-zero; asked of the tensor, since NumPy lacks some of its types, as bf16."""
    try:
        own = tensor.detach()
        if own.dtype.itemsize == 1 and own.is_floating_point():
            own = own.float()  # float8 cannot be compared
        return (own if own.dtype == torch.bool else own != 0).cpu().numpy()
    except (AttributeError, RuntimeError, TypeError) as error:
        kind = getattr(tensor, "dtype", None), getattr(tensor, "layout", None), getattr(tensor, "device", None)
        what = " ".join([type(tensor).__name__, *(str(own) for own in kind if own is not None)])
        raise TombolaError(
            f"no mask can be made of '{name}', a {what}; give a dense tensor of truths or numbers that has values"
        ) from error
