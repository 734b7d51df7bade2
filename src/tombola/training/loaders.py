"""Data that comes in batches: passes over a user's loader, the same for the same (seed, epoch)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

from tombola.arrays import as_tensors
from tombola.errors import TombolaError
from tombola.nested import tensors_in
from tombola.scores import Batch, Target, batch_size, checked_batch, paired
from tombola.training.batches import MemoryBatches, augmented, check_usable
from tombola.training.lengths import count_by_sampler, length_or_none
from tombola.training.random_generators import RandomStates, generators_in, seed_draws
from tombola.training.randomness import mixed
from tombola.training.seeded_loader import is_plain, own_sampler, reads_at_random, seeded, seeded_stream

DATA = 0x64617461
"""Sets the random numbers of the data apart from those of the network."""
END = object()


class DataWarning(UserWarning):
    """Data that cannot be told apart from others, or that differ where they should not."""


@dataclass(eq=False)
class Known:
    """What earlier passes over some data showed.

    samples: in a pass, by split and number of batches; first: a summary of a pass's first batch, by split, seed and
    epoch; told: warnings that were given; lasting: the loader whose workers persist; busy: whether a pass uses it.
    """

    samples: dict[Any, int] = field(default_factory=dict)
    first: dict[Any, list[Any]] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    lasting: Any = None
    busy: bool = False


_known: WeakKeyDictionary[Any, Known] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class LoadedBatches:
    """One pass over data that comes in batches, as pairs (inputs, targets) of tensors.

    The user's loader, its samplers and its generators stay as they are.

    Args:
        source: a DataLoader, another iterable of batches, or a function without arguments that returns one.
        seed: of the run.
        epoch: counted from 0; with the seed it decides all that is random.
        split: the name, for messages.
        steps: batches in a pass, where the source does not say it or a pass shall end earlier.
        target: which part of a batch is the target, as `paired` takes it.
        double: keep float64, or a function that says whether; else it becomes float32.
        augment: names of `AUGMENTATIONS`.
        owner: the object to which belongs what a pass shows of the data; the source itself if None.

    Examples:
        >>> loader = DataLoader([(torch.ones(2), n) for n in range(4)], batch_size=2, shuffle=True)
        >>> first, again = ([y.tolist() for _, y in LoadedBatches(loader, seed=0, epoch=0)] for _ in range(2))
        >>> first == again
        True
    """

    source: Any
    seed: int
    epoch: int
    split: str = "train"
    steps: int | None = None
    target: Target = None
    double: bool | Callable[[], bool] = True
    augment: tuple[str, ...] = ()
    owner: Any = None

    def __len__(self) -> int:
        return len(self.source) if self.steps is None else self.steps

    @property
    def samples(self) -> int:
        """How many samples a pass gives; counted by the sampler where it says so, else by a pass."""
        counts, key = self._known.samples, (self.split, self.steps)
        if key not in counts:
            counted = self._count_by_sampler()
            counts[key] = sum(map(batch_size, self)) if counted is None else counted
        return counts[key]

    def shortened(self, steps: int) -> LoadedBatches:
        """The first batches of the pass alone."""
        return replace(self, steps=steps)

    def __iter__(self) -> Iterator[Batch]:
        length, samples = length_or_none(self), 0
        with self._opened() as read:
            for number in count():
                if number == length:
                    self._look_beyond(read, number)
                    break
                batch = read(number)
                if batch is END:
                    break
                pair = self._pair(batch, number)
                samples += batch_size(pair)
                yield pair
        self._known.samples.setdefault((self.split, self.steps), samples)

    @property
    def _known(self) -> Known:
        owner = self.source if self.owner is None else self.owner
        # Only objects that are equal to themselves alone: the dictionary would take two equal ones for one.
        alone = type(owner).__hash__ is object.__hash__ and type(owner).__weakrefoffset__
        return _known.setdefault(owner, Known()) if alone else Known()

    @property
    def _first_seed(self) -> int:
        """The seed of the first batch; those of the next ones follow."""
        generator = getattr(self.source, "generator", None)
        own = [generator.initial_seed()] if isinstance(generator, torch.Generator) else []
        return mixed(self.seed, self.epoch, DATA, *own)

    @contextmanager
    def _opened(self) -> Generator[Callable[[int], Any]]:
        """A function that reads a batch by its number, one after another; END where there is none."""
        source = self.source
        if type(source) in (list, tuple):
            given = iter(source)
            yield lambda _: next(given, END)
            return
        first, states = self._first_seed, RandomStates(generators_in(source))
        indexed = is_plain(source) and not isinstance(source.dataset, IterableDataset)
        calm = indexed and not reads_at_random(source)
        iterator: Iterator[Any] | None = None

        def read(number: int) -> Any:
            nonlocal iterator
            if calm and iterator is not None:
                return next(iterator, END)
            with states.kept():
                if not indexed:
                    seed_draws(first + number, states.generators)
                if iterator is None:
                    iterator = iter(batches())
                return next(iterator, END)

        with ExitStack() as ending:
            if indexed:
                batches = ending.enter_context(self._drawn_by_index(source))
            elif is_plain(source):
                batches = lambda: seeded_stream(source, first)  # noqa: E731
            else:
                batches = source if callable(source) and not hasattr(source, "__iter__") else lambda: source
            ending.enter_context(_epoch_told(source, self.epoch, samplers=not is_plain(source)))
            yield read

    @contextmanager
    def _drawn_by_index(self, loader: DataLoader) -> Generator[Callable[[], DataLoader]]:
        known = self._known
        # A loader whose workers persist has one iterator: a second pass would end the first.
        lasting = loader.persistent_workers and not known.busy and self.owner is None
        if lasting and known.lasting is None:
            known.lasting = seeded(loader)
        twin, sampler = known.lasting if lasting else seeded(loader)
        sampler.seed, sampler.first, sampler.epoch = self.seed, self._first_seed, self.epoch
        known.busy = known.busy or lasting
        try:
            yield lambda: twin
        finally:
            known.busy = known.busy and not lasting

    def _pair(self, batch: Any, number: int) -> Batch:
        inputs, targets = paired(batch, self.target)
        inputs = as_tensors(inputs, double=self.double)
        if number == 0:
            check_usable(self.split, (inputs, targets))
            if not tensors_in(inputs):
                kind = type(inputs).__name__
                raise TombolaError(
                    f"the inputs of a batch of '{self.split}' are a {kind} without tensors; give tensors"
                )
            self._compare(inputs)
        if self.augment:
            generator = torch.Generator().manual_seed(self._first_seed + number)
            inputs = augmented(inputs, self.augment, generator)
        return inputs, as_tensors(targets, double=self.double, labels=True)

    def _compare(self, inputs: Any) -> None:
        """Warn once if the first batch is another one than an earlier pass of the same seed and epoch gave."""
        known, key = self._known, (self.split, self.seed, self.epoch)
        summary = [_summary(tensor) for tensor in tensors_in(inputs)]
        if self.epoch < 2 and len(known.first) < 100:
            known.first.setdefault(key, summary)
        if known.first.get(key, summary) != summary:
            self._warn(
                f"the first batch of '{self.split}' is another one than before with the same seed and epoch: the data "
                "draw on a random state that Tombola does not know, or change while they are used, so that runs cannot "
                "be repeated; draw from torch's, NumPy's or Python's global random state, or from a generator that the "
                "data set holds"
            )

    def _look_beyond(self, read: Callable[[int], Any], number: int) -> None:
        """Warn once of batches that no pass ever reads."""
        known, sized = self._known, self.steps is None
        if (is_plain(self.source) and not isinstance(self.source.dataset, IterableDataset)) or "beyond" in known.told:
            return
        first, second = (known.first.get((self.split, self.seed, epoch)) for epoch in (0, 1))
        if not sized and (self.epoch != 1 or first is None or first != second):
            return
        known.told.add("beyond")
        if read(number) is not END:
            self._warn(
                f"'{self.split}' has more than the {number} batches of its length, and the others are never read; "
                "correct its length"
                if sized
                else f"each epoch begins '{self.split}' anew and reads the same {number} batches, and what comes after "
                "them is never read; shuffle the stream, or give it a set_epoch"
            )

    def _warn(self, text: str) -> None:
        if text not in self._known.told:
            self._known.told.add(text)
            warnings.warn(text, DataWarning, stacklevel=4)

    def _count_by_sampler(self) -> int | None:
        """The samples of a pass if the sampler says so and one batch of the loader confirms it."""
        source = self.source
        if not is_plain(source) or isinstance(source.dataset, IterableDataset) or source.batch_sampler is None:
            return None
        counted = count_by_sampler(source, self.steps)
        if counted is None:
            with RandomStates(generators_in(source.batch_sampler)).kept():
                seed_draws(self._first_seed)
                batches = own_sampler(source.batch_sampler, self.seed, self.epoch)
                sizes = [len(places) for places in islice(batches, len(self))]
            counted = sum(sizes), sizes[0] if sizes else 0
        samples, size = counted
        # A collate function of the user's own may split or merge samples.
        same = source.collate_fn is default_collate or not samples or batch_size(next(iter(self))) == size
        return samples if same else None


def pairs_of(batches: Iterable[Any]) -> Iterable[Batch]:
    """The batches of any task as pairs of tensors.

    Args:
        batches: what a task gives for a split.

    Raises:
        TombolaError: while they are read, for a batch that is no pair.
    """
    return batches if isinstance(batches, MemoryBatches | LoadedBatches) else map(checked_batch, batches)


def first_of(batches: Iterable[Any]) -> Batch:
    """The first batch of a task's training split.

    Args:
        batches: what the task gives.

    Raises:
        TombolaError: if there is none, or it is no pair.
    """
    for batch in pairs_of(batches):
        return batch
    raise TombolaError("the training data gave no batch; give at least one sample")


@contextmanager
def _epoch_told(source: Any, epoch: int, samplers: bool) -> Generator[None]:
    """Tell data the epoch, if they ask for it, and afterwards the one that they had; samplers: tell these too."""
    names = ("sampler", "batch_sampler", "dataset") if samplers else ("dataset",)
    parts: list[Any] = [source, *(getattr(source, name, None) for name in names)]
    told = [(part, getattr(part, "epoch", None)) for part in parts if callable(getattr(part, "set_epoch", None))]
    for part, _ in told:
        part.set_epoch(epoch)
    try:
        yield
    finally:
        for part, before in told:
            if isinstance(before, int):
                part.set_epoch(before)


def _summary(tensor: Tensor) -> tuple[Any, ...]:
    """What tells a tensor from others, in little time."""
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        return (tuple(tensor.shape),)
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return tuple(tensor.shape), repr(float(real.sum(dtype=torch.float64)))
