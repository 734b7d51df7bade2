"""The ticket: a mask, the weights from which it trains, and where it came from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.files import printable_text, read_as
from tombola.tickets.mask import Bits, Mask
from tombola.tickets.start import Seed, Values, overlay
from tombola.tickets.tensor_names import parameters_of
from tombola.tickets.tensors import check_fits, digest_of, put_values, tensors_of
from tombola.tickets.ticket_file import read_file, write_file

Dead = Literal["zero", "frozen"]
"""What becomes of a network's other weights while a ticket trains: they are zero, or stay at their start values."""

_Plain = str | int | float | bool | None
DIMENSIONS, LARGEST_SIDE = 16, 2**40
"""What a parameter's shape has at most; torch itself has no more than 64 dimensions."""


@dataclass(frozen=True)
class Provenance:
    """Where a ticket came from.

    Args:
        method: what searched it.
        settings: of the method.
        task: the task's labels, as whoever made the ticket typed them. They choose nothing when the file is read.
        cost: of the search, as `training.Cost`.
        seed: of the search.
        ties: how many units of equal scores the hash of their names decided.
        whole: the validation metric of the network that it was cut out of, where the search measured it.
        before: the validation metric of the ticket before it trained, where the search measured it.
        version: of Tombola.
        target: what it was to come to, as half of the FLOPs, where it had a target: asked, counted and measured.
    """

    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    task: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, int | float] = field(default_factory=dict)
    seed: int | None = None
    ties: int = 0
    whole: float | None = None
    before: float | None = None
    version: str = ""
    target: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Ticket:
    """A part of a network, and all that is needed to train it.

    Args:
        mask: the weights that are kept.
        start: the values from which it trains.
        held: the parameters that keep their start value while it trains.
        recipe: what the method prescribes for that training: fields of the task's recipe, and their values.
        removed: at a granularity coarser than weights, the units that were removed from each group; the mask follows.
        provenance: where the ticket came from.
        dead: what becomes of dead weights while it trains: they are zero (`zero`); or they stay at their start values,
            and all parameters outside the mask too (`frozen`), as in the fine-tuning of a pre-trained network.
            `dataclasses.replace(ticket, dead="frozen")` makes such a ticket of one that any method found.

    Examples:
        >>> mask = Mask.of({"0.weight": torch.tensor([[True, False], [True, True]])})
        >>> print(Ticket(mask, Seed(0, digest="")))
        Ticket(no method: 3 of 4 weights, density 0.75, starts from seed 0, db35ebf1)
    """

    mask: Mask
    start: Seed | Values
    held: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    removed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)
    dead: Dead = "zero"

    def __post_init__(self) -> None:
        if self.dead not in ("zero", "frozen"):
            raise TombolaError(f"dead is {self.dead!r}; give 'zero' or 'frozen'")
        own = {key: tuple(value) if isinstance(value, list) else value for key, value in self.recipe.items()}
        object.__setattr__(self, "recipe", own)

    def __str__(self) -> str:
        method = printable_text(self.provenance.method) or "no method"
        start = f"seed {self.start.seed}" if isinstance(self.start, Seed) else f"values of {self.start.what}"
        start = printable_text(start)
        kept = f"{self.mask.total_kept:,} of {self.mask.size:,} weights"
        kept += ", the rest frozen" if self.dead == "frozen" else ""
        return f"Ticket({method}: {kept}, density {self.density:.4g}, starts from {start}, {self.digest[:8]})"

    __repr__ = __str__

    @property
    def density(self) -> float:
        """Kept share of the prunable weights."""
        return self.mask.density

    @property
    def digest(self) -> str:
        """A fingerprint of what trains: mask, start, held, recipe and dead; not of where they came from."""
        parts: tuple[Any, ...] = (self.mask.digest, self.start.digest, self.held, sorted(self.recipe.items()))
        parts += (self.dead,) if self.dead != "zero" else ()  # digests from before there was a choice stay the same
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    def put_into(self, model: nn.Module) -> None:
        """Copy the start values into a model of the same architecture, bit for bit.

        A `Seed` start expects the model as its task built it with that seed, and checks that it is.
        """
        check_fits(self.mask, parameters_of(model))
        if isinstance(self.start, Seed):
            overlay(model, self.start.seed, self.start.weights, self.mask, self.held)
            if digest_of(tensors_of(model)) != self.start.digest:
                raise TombolaError(
                    f"this ticket starts from the initialisation with seed {self.start.seed}, but the task built "
                    "other values from that seed; use the model and the torch version that the ticket was found with"
                )
            return
        put_values(model, self.start.tensors, of_ticket=True)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; a kill or a full disk leaves what was there before."""
        tensors = {
            f"mask/{n}": torch.from_numpy(np.frombuffer(b.packed, np.uint8).copy()) for n, b in self.mask.bits.items()
        }
        if isinstance(self.start, Values):
            start: dict[str, Any] = {"what": self.start.what, "epochs_spent": self.start.epochs_spent}
            tensors |= {f"values/{name}": tensor.contiguous() for name, tensor in self.start.tensors.items()}
        else:
            start = asdict(self.start)
        description = {
            "shapes": {name: list(shape) for name, shape in self.mask.shapes.items()},
            "start": start,
            "held": list(self.held),
            "recipe": dict(self.recipe),
            "removed": {group: list(units) for group, units in self.removed.items()},
            "provenance": {key: value for key, value in asdict(self.provenance).items() if key != "target" or value},
            "dead": self.dead,
        }
        write_file(Path(path), description, tensors)

    @staticmethod
    def load(path: str | Path) -> Ticket:
        """Read a ticket's file, checking every field; raises TombolaError naming what is wrong."""
        return read_file(Path(path), _ticket)


def zeros_of(what: Mask | Ticket) -> Mask:
    """The mask that says where a network is zero: the mask itself, or that of a ticket.

    Raises:
        TombolaError: if the ticket's other weights are frozen, so that nothing is zero.
    """
    if isinstance(what, Mask):
        return what
    if what.dead == "frozen":
        raise TombolaError(
            "this ticket leaves all other weights at their start values, so that nothing of the network is zero; use "
            "the trained network as it is, or give the ticket's mask if its other weights shall go"
        )
    return what.mask


@dataclass(frozen=True)
class _Description:
    """What a ticket's file says beside its tensors."""

    shapes: dict[str, tuple[int, ...]]
    start: dict[str, Any]
    held: tuple[str, ...]
    recipe: dict[str, _Plain | tuple[_Plain, ...]]
    removed: dict[str, tuple[int, ...]]
    provenance: Provenance
    dead: Dead = "zero"


def _ticket(content: dict[str, Any], tensors: dict[str, Tensor]) -> Ticket:
    masks = {name.removeprefix("mask/"): t for name, t in tensors.items() if name.startswith("mask/")}
    values = {name.removeprefix("values/"): t for name, t in tensors.items() if name.startswith("values/")}
    said = read_as(_Description, content)
    for what, kind in (("provenance", Provenance), ("start", _Stored if values else Seed)):
        needed = {field.name for field in fields(kind)} - {"whole", "target"}  # Not in all files.
        if lacking := sorted(needed - content[what].keys()):
            raise ValueError(f"its {what} has no `{lacking[0]}`")
    if len(masks) + len(values) != len(tensors) or masks.keys() != said.shapes.keys():
        raise ValueError("its tensors are not the ones that its description names")
    if any(printable_text(name) != name for name in (*said.shapes, *values, *said.held, *said.removed)):
        raise ValueError("it names a parameter in characters that cannot be shown")
    if "compile" in said.recipe:  # which starts a compiler here
        raise ValueError("its recipe prescribes 'compile', which whoever trains it decides")
    if any(unit < 0 for units in said.removed.values() for unit in units):
        raise ValueError("`removed` does not list units by number")
    if values:
        start: Seed | Values = Values(values, **read_as(_Stored, said.start).__dict__)
    else:
        start = read_as(Seed, said.start)
    bits = {name: _bits(name, masks[name], shape) for name, shape in said.shapes.items()}
    mask = Mask(bits, said.provenance.ties)
    return Ticket(mask, start, said.held, said.recipe, said.removed, said.provenance, said.dead)


@dataclass(frozen=True)
class _Stored:
    """What a file says of stored values, beside the tensors."""

    what: str
    epochs_spent: Annotated[float, msgspec.Meta(ge=0, le=1e6)]


def _bits(name: str, packed: Tensor, shape: tuple[int, ...]) -> Bits:
    if len(shape) > DIMENSIONS or not all(0 <= side <= LARGEST_SIDE for side in shape):
        raise ValueError(f"the shape of '{name}' is {shape!r}")
    size = math.prod(shape)
    if packed.dtype != torch.uint8 or packed.ndim != 1 or packed.numel() != -(-size // 8):
        raise ValueError(f"the mask of '{name}' does not have one bit for each of {size} weights")
    if size % 8 and int(packed[-1]) & (0xFF >> size % 8):
        raise ValueError(f"the mask of '{name}' keeps weights beyond its end")
    return Bits(tuple(shape), packed.numpy().tobytes())
