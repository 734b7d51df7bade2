"""Is what is left of a fine-tuned network still good? The rule of Prasanna et al., on the validation split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.registry import lower_is_better
from tombola.scores import Batch, Forward, batch_size
from tombola.structure import in_mode
from tombola.tickets import Mask, Seed, Ticket, Values, device_of, recomputable, tensors_of
from tombola.training import Fit, Run, Tally, Task, autocast, metric_of, move, pick

Keep = Literal["good", "random", "bad"]
"""good: what the search kept. random: as many, drawn at random. bad: as many of what it removed first."""

Weights = Literal["pretrained", "fine-tuned"]
"""pretrained: the ticket is fine-tuned from the network's first values. fine-tuned: it is ready, with no training."""


@dataclass(frozen=True)
class Judge:
    """Measures what is left of a network on the validation split.

    Args:
        task: gives that split, the loss and the metric.
        run: gives the device.
        call: the forward pass, which counts what it costs.
    """

    task: Task
    run: Run
    call: Forward

    def batches(self) -> Iterator[Batch]:
        """The validation split in batches of the recipe's size, on the device."""
        found = False
        for inputs, targets in self.task.batches("validation", 0, 0):
            size = batch_size((inputs, targets))
            for start in range(0, size, self.task.recipe.batch):
                part = slice(start, start + self.task.recipe.batch)
                # Data sets and loaders give batches of the recipe's size, in whatever they hold.
                own = (inputs, targets) if size <= self.task.recipe.batch else pick((inputs, targets), part)
                found = True
                yield move(own, self.run.device)
        if not found:
            raise TombolaError(
                "the search removes what the validation split can do without, and there is no such sample; give the "
                "data a 'validation', or more to train on"
            )

    def forward(self, model: nn.Module, inputs: object) -> object:
        """The outputs, in the recipe's precision."""
        with autocast(self.task.recipe, self.run.device):
            return self.call(model, inputs)

    @torch.no_grad()
    def metric(self, model: nn.Module) -> float:
        """The metric of a network on the validation split."""
        tally, count = Tally(metric_of(self.task), device_of(model)), 0
        with recomputable(), in_mode(model, "eval"):
            for inputs, targets in self.batches():
                size = batch_size((inputs, targets))
                tally.add(self.forward(model, inputs), targets, size)
                count += size
        return tally.value(count)

    def is_good(self, metric: float, whole: float, share: float) -> bool:
        """Whether a metric is at least this share of the whole network's; of an error, at most so much worse."""
        lost = (metric - whole) if lower_is_better(metric_of(self.task)) else (whole - metric)
        return lost <= (1 - share) * abs(whole)


def drawn_ticket(
    mask: Mask,
    model: nn.Module,
    start: Seed,
    weights: Weights,
    fit: Fit,
    epochs: int,
    removed: dict[str, tuple[int, ...]],
) -> Ticket:
    """The ticket of a mask: on the network's first values, or on the fine-tuned ones with no training left to do.

    Args:
        mask: what stays.
        model: the fine-tuned network.
        start: its first values.
        weights: which of the two.
        fit: the fine-tuning.
        epochs: of the recipe.
        removed: whole units that go, by group.
    """
    if weights == "pretrained":
        return Ticket(mask, start, removed=removed)
    spent = len(fit.history)
    return Ticket(mask, Values(tensors_of(model), "end", spent), recipe={"start": f"{epochs}ep"}, removed=removed)


def check_search(density: float, share: float, good: float) -> None:
    """TombolaError for settings of such a search that are out of range."""
    if not 0 < density <= 1:
        raise TombolaError(f"density is {density}; give the share at which the search ends, above 0 and at most 1")
    if not 0 < share < 1:
        raise TombolaError(f"share is {share}; give what each step removes, between 0 and 1, as 0.1")
    if not 0 <= good <= 1:
        raise TombolaError(f"good is {good}; give the share of the whole network's metric, from 0 to 1, as 0.9")
