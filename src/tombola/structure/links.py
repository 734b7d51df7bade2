"""What a trace finds out about channels while the network is called."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from tombola.structure.marks import ABSENT, Marks, Places
from tombola.structure.wiring import PINNED

Pairs = list[np.ndarray]


@dataclass
class Links:
    """Pairs of channels, as `Wiring` has them, and what else is seen.

    Args:
        flows: the first channel feeds the second.
        uses: the first is needed where the second lives, and does not keep it alive.
        ties: both can only be cut out together.
        pinned: channels that cannot be cut out, each time with the operation that is the reason; "" for an output.
        met: the layers and norms that were used.
        deep: the modules that were called on a tensor with more than two axes.
        sized: channels of whose number a tensor's shape is given, each time; the code may have it written in it.
        guessed: whether the code takes blocks of channels by numbers, of which it was guessed that they follow a cut.
        follows: by a norm, the layers whose results it takes as they are; "" for another tensor.
        outputs: what the network gives in evaluation mode; on the meta device where the call needs no values.
    """

    flows: Pairs = field(default_factory=list)
    uses: Pairs = field(default_factory=list)
    ties: Pairs = field(default_factory=list)
    pinned: list[tuple[np.ndarray, str]] = field(default_factory=list)
    met: set[str] = field(default_factory=set)
    deep: set[str] = field(default_factory=set)
    sized: list[np.ndarray] = field(default_factory=list)
    guessed: bool = False
    follows: dict[str, list[str]] = field(default_factory=dict)
    outputs: list[Tensor] = field(default_factory=list)

    def extend(self, more: Links) -> None:
        """Add what another call of the network showed, but for its outputs."""
        for name in ("flows", "uses", "ties", "pinned", "sized"):
            getattr(self, name).extend(getattr(more, name))
        self.met |= more.met
        self.deep |= more.deep
        self.guessed |= more.guessed
        for norm, layers in more.follows.items():
            # A norm that is called in both follows what it follows in both.
            self.follows[norm] = list(dict.fromkeys([*self.follows.get(norm, ()), *layers]))

    def tie(self, places: Places, others: Places) -> None:
        """Channels at the same place can only be cut together."""
        first, second = pairs = _pairs(places, others)
        self.ties.append(pairs[:, (first >= 0) & (second >= 0) & (first != second)])

    def pin(self, marks: Marks | None, reason: str) -> None:
        """Whoever takes these channels needs all of them, and in their places.

        Args:
            marks: those of a tensor; None if it has none.
            reason: what takes them.
        """
        if marks is not None:
            channels = np.unique(np.concatenate([places.ravel() for places in marks.places]))
            channels = channels[channels > 0]
            self.flows.append(_pairs(channels, np.array(PINNED)))
            self.hold(channels, reason)

    def need(self, marks: Marks) -> None:
        """What takes these channels needs them, whichever of its own live."""
        for places in marks.places:
            self.uses.append(_pairs(places[places > 0], np.array(PINNED)))

    def hold(self, channels: np.ndarray, reason: str) -> None:
        """These channels cannot be cut, by their numbers."""
        channels = channels[channels > 0]
        if len(channels):
            self.ties.append(_pairs(np.array(PINNED), channels))
            self.pinned.append((channels, reason))

    def feed(self, channels: np.ndarray, reason: str) -> None:
        """Something unknown feeds these channels, so that none of them can be cut."""
        self.flows.append(_pairs(np.array(PINNED), channels))
        self.hold(channels, reason)

    def multiply(self, marks: Marks | None, axis: int, table: Marks, reason: str) -> None:
        """Products of a tensor's channels and those of a table are added up: both can only be cut together.

        Args:
            marks: the tensor's; None if it comes from no channels.
            axis: where the tensor's channels lie.
            table: the marks of the table.
            reason: what multiplies.
        """
        channels = table.first.ravel()
        if marks is None or marks.axes - {axis} or any(p.size != len(channels) and p.max() > 0 for p in marks.places):
            self.pin(marks, reason)
            self.pin(table, reason)
            return
        terms = [np.broadcast_to(own.ravel(), channels.shape) for own in marks.places]
        for places in terms:
            self.tie(np.where(places == PINNED, ABSENT, places), channels)
            # Each is needed while the other lives, and keeps it not alive: a column is an embedding's too.
            self.uses += [_living(places, channels), _living(places, channels)[::-1]]
        self.hold(channels[np.max(terms, 0) == PINNED], reason)

    def consume(self, marks: Marks | None, axis: int, channels: np.ndarray, reason: str) -> None:
        """A layer or norm takes a tensor, whose channels lie along an axis.

        Args:
            marks: the tensor's; None if it comes from no channels.
            axis: where the layer's inputs lie.
            channels: their numbers.
            reason: what takes them.
        """
        if (
            marks is None
            or marks.axes - {axis}
            or any(p.size == 1 < len(channels) and p.max() > 0 for p in marks.places)
        ):
            self.pin(marks, reason)
            self.feed(channels, reason if marks else "")
            return
        if marks.takes is not None:
            self.hold(marks.takes.ravel(), reason)
        for every, found in ((marks.feeds, self.flows), (marks.uses, self.uses)):
            for places in every:
                pairs = _pairs(places.ravel(), channels)
                found.append(pairs[:, pairs[0] >= 0])
                self.ties.append(pairs[:, pairs[0] > 0])
        terms = np.stack([np.broadcast_to(own.ravel(), channels.shape) for own in marks.feeds])
        constant = (terms == PINNED).any(0)
        if constant.any():
            last = terms.max(0)
            self.hold(channels[last == PINNED], reason)
            self.pinned.append((last[constant & (last > 0)], "a constant that is added to them"))


def _pairs(places: Places, others: Places) -> np.ndarray:
    if places.shape != others.shape:
        places, others = np.broadcast_arrays(places, others)
    return np.stack([places.ravel(), others.ravel()])


def _living(places: np.ndarray, channels: np.ndarray) -> np.ndarray:
    pairs = _pairs(places, channels)
    return pairs[:, pairs[0] > 0]
