"""Random generators that a data set, a sampler or a function of the user's holds: found, seeded, and put back."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tombola.training.source_code import is_installed

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
SMALL = 64
"""Lists and mappings with more entries hold data, in which no generator is looked for."""
MOST = 1000
"""How many objects are looked at for generators."""


def generators_in(value: Any) -> list[Any]:
    """Find the random generators that an object uses.

    Args:
        value: a data set, a collate function and the like.

    Returns:
        The generators in its attributes, in the objects that these hold, and in closures and global names of its code.
    """
    found: list[Any] = []
    seen: set[int] = set()
    waiting = deque([value])
    while waiting and len(seen) < MOST:
        part = waiting.popleft()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, GENERATORS):
            found.append(part)
        else:
            waiting.extend(_parts_of(part))
    return found


def _parts_of(value: Any) -> Iterable[Any]:
    if isinstance(value, Tensor | np.ndarray | str | bytes | int | float | type | ModuleType | None):
        return ()
    if isinstance(value, Mapping | list | tuple | set):
        if len(value) > SMALL:
            return ()
        return value.values() if isinstance(value, Mapping) else value
    if isinstance(value, MethodType):
        return (value.__self__, value.__func__)
    if isinstance(value, FunctionType):
        return () if is_installed(value) else _used_by(value)
    own = [kind for kind in type(value).__mro__ if not is_installed(kind)]
    code = [part for kind in own for part in vars(kind).values() if isinstance(part, FunctionType)]
    return (*getattr(value, "__dict__", {}).values(), *code)


def _used_by(function: FunctionType) -> list[Any]:
    """What a function holds in its closure and defaults, and names in its module."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    names = [function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__]
    return [*cells, *(function.__defaults__ or ()), *(used for used in names if not isinstance(used, ModuleType))]


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # the name is given a value later
        return False


def seed_draws(seed: int, generators: Iterable[Any] = ()) -> None:
    """Seed torch on the CPU, NumPy and Python, and some generators each by itself."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)
    for number, generator in enumerate(generators):
        seed_generator(generator, seed + ((number + 1) << 40))


def seed_generator(generator: Any, seed: int) -> None:
    """Seed a generator of any of `GENERATORS`."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed & ((1 << 63) - 1))
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
    elif isinstance(generator, np.random.RandomState):
        generator.seed(seed & 0xFFFFFFFF)
    else:
        generator.seed(seed)


class RandomStates:
    """Keeps the global random states and those of some generators while a block runs.

    Args:
        generators: whose states are put back, beside torch's on the CPU, NumPy's and Python's.
    """

    def __init__(self, generators: Iterable[Any] = ()) -> None:
        self.generators = tuple(generators)
        self._numpy = np.random.MT19937(0)  # exchanged for NumPy's own: copying its state takes far longer

    @contextmanager
    def kept(self) -> Generator[None]:
        """Inside, anything may be seeded and drawn."""
        before, python = torch.default_generator.get_state(), random.getstate()
        numpy = np.random.get_bit_generator()  # ty: ignore[missing-attribute]
        _use(self._numpy)
        try:
            with generators_kept(self.generators):
                yield
        finally:
            torch.default_generator.set_state(before)
            random.setstate(python)
            _use(numpy)


def _use(numpy: Any) -> None:
    """Let NumPy's functions draw from a bit generator."""
    np.random.set_bit_generator(numpy)  # ty: ignore[missing-attribute]


@contextmanager
def generators_kept(generators: Sequence[Any]) -> Generator[None]:
    """Put the states of some generators back after a block."""
    held = [generator_state(generator) for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, held, strict=True):
            put_generator_state(generator, state)


def generator_state(generator: Any) -> Any:
    """The state of a generator of any of `GENERATORS`."""
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, random.Random):
        return generator.getstate()
    return generator.get_state()


def put_generator_state(generator: Any, state: Any) -> None:
    """Bring a generator to a state that `generator_state` gave."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
