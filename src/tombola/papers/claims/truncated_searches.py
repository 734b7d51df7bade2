"""Early-Bird and WORM from weights that know images already, as the paper starts from ImageNet's: from rotations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from tombola import zoo
from tombola.methods import Worm, find
from tombola.papers.claims.measures import EPOCHS
from tombola.papers.claims.units import POINTS, Unit
from tombola.studies import Engine, TaskOptions, supervised_task
from tombola.tickets import Ticket, tensors_of
from tombola.training import Recipe, Run, SupervisedTask, Task, TaskWrapper, train, with_recipe
from tombola.training.task import Batch, Split

TREND = Unit("epochs a decade of r", "epochs", 1, 0.25)


@dataclass(frozen=True)
class StartedTask(TaskWrapper):
    """A task whose networks start from given weights, all but the classifier; each epoch may be cut into parts.

    Args:
        task: the other task.
        start: values by name.
        parts: a part of an epoch counts as an epoch, so that masks are taken as often.
    """

    start: Mapping[str, Tensor]
    parts: int = 1

    def build(self, seed: int) -> nn.Module:
        model = self.task.build(seed)
        model.load_state_dict(dict(self.start), strict=False)
        return model

    def batches(self, split: Split, seed: int, epoch: int) -> Iterable[Batch]:
        if split != "train" or self.parts == 1:
            return self.task.batches(split, seed, epoch)
        whole = list(self.task.batches(split, seed, epoch // self.parts))
        ends = np.linspace(0, len(whole), self.parts + 1).round().astype(int)
        return whole[ends[epoch % self.parts] : ends[epoch % self.parts + 1]]


@dataclass(frozen=True)
class TruncatedSearches:
    """When tickets are drawn, what they lose and how soon they are back, by the factor on the gradients of what goes.

    Args:
        data: of the registry.
        model: of the registry.
        width: its width.
        density: share of the channels that tickets keep.
        truncations: the factors r; 1 is Early-Bird.
        truncate: when gradients are truncated.
        first_masks: whether the mask before training is in the window.
        pretraining: epochs of telling rotations apart, from which all searches start.
        epochs: of a search at most.
        lr: constant learning rate of search and retraining.
        parts: masks are taken so many times an epoch.
        retraining: epochs of each ticket's own training; 0 searches alone.
    """

    data: str = "fashion-mnist-14"
    model: str = "vgg11"
    width: float = 0.25
    density: float = 0.5
    truncations: tuple[float, ...] = (1.0, 3e-3)
    truncate: Literal["settled", "always", "distance"] = "settled"
    first_masks: tuple[bool, ...] = (True,)
    pretraining: int = 5
    epochs: int = 20
    lr: float = 0.01
    parts: int = 1
    retraining: int = 8

    def __call__(self, seed: int, engine: Engine, data_dir: Path | None) -> Mapping[str, float]:
        recipe = Recipe(self.epochs * self.parts, lr=self.lr, schedule="constant", weight_decay=0.0)
        task = supervised_task(TaskOptions(self.data, self.model, self.width, recipe=recipe, data_dir=data_dir))
        run = Run(seed, device=engine.executor.device, bars=engine.executor.bars)
        start = self._pretrained(task, seed, run)
        figures: dict[str, float] = {}
        for r, first in self._cells:
            method = Worm(density=self.density, truncation=r, truncate=self.truncate, untrained=first)
            searched = StartedTask(task, start, self.parts)
            ticket = find(searched, method, run=run.part(f"search-{r:g}-{first}", seed))
            figures |= self._told(task, start, ticket, _name(r, first), run)
        for first in self.first_masks:
            epochs = [figures[f"{_name(r, first)}, ticket epoch"] for r in self.truncations]
            figures[_gain(first)] = epochs[0] - epochs[-1]
            decades = np.log10([max(r, 1e-4) for r in self.truncations])
            figures[f"trend{_without(first)}"] = float(np.polyfit(decades, epochs, 1)[0])
        return figures | {"none": 0.0}

    @property
    def _cells(self) -> list[tuple[float, bool]]:
        return list(product(self.truncations, self.first_masks))

    def _told(self, task: Task, start: Mapping[str, Tensor], ticket: Ticket, name: str, run: Run) -> dict[str, float]:
        provenance = ticket.provenance
        assert provenance.whole is not None
        assert provenance.before is not None
        spent = getattr(ticket.start, "epochs_spent", 0.0) / self.parts
        figures = {f"{name}, ticket epoch": spent, f"{name}, lost in pruning": provenance.whole - provenance.before}
        if not self.retraining:
            return figures
        again = StartedTask(with_recipe(task, replace(task.recipe, epochs=self.retraining)), start)
        trained = train(again, replace(ticket, recipe={}), run=run.part(f"train-{name}", run.seed))
        back = [row["validation_metric"] >= provenance.whole - 0.01 for row in trained.history]
        recovered = 1.0 + (back.index(True) if any(back) else len(back))
        return figures | {f"{name}, epochs to recover": recovered, name: trained.metric}

    def _pretrained(self, task: SupervisedTask, seed: int, run: Run) -> dict[str, Tensor]:
        """The weights of a network that has learnt which of four ways each training image was turned; no classifier."""
        inputs, _ = task.data["train"]
        turns = torch.randint(4, (len(inputs),), generator=torch.Generator().manual_seed(seed))
        turned = torch.stack([image.rot90(int(turn), (1, 2)) for image, turn in zip(inputs, turns, strict=True)])
        build = zoo.model(self.model, tuple(inputs.shape[1:]), 4, self.width)
        rotations = SupervisedTask(
            build, {"train": (turned, turns), "test": (turned[:100], turns[:100])}, recipe=Recipe(self.pretraining)
        )
        values = tensors_of(train(rotations, run=run.part("rotations", seed)).model)
        own = tensors_of(task.build(seed))
        return {name: tensor for name, tensor in values.items() if own[name].shape == tensor.shape}

    @property
    def facts(self) -> dict[str, str | float]:
        """What the page's table says of the protocol beside the settings."""
        start = f"{self.pretraining} epochs of telling rotations apart"
        return {"start": start, "schedule": "constant", "batch": Recipe.batch}

    @property
    def epochs_of_training(self) -> float:
        """How many epochs of training a seed takes, about."""
        return self.pretraining + len(self._cells) * (self.epochs + self.retraining)

    @property
    def units(self) -> dict[str, Unit]:
        each = replace(EPOCHS, step=1 / self.parts)
        found: dict[str, Unit] = {"none": TREND}
        for r, first in self._cells:
            found |= {f"{_name(r, first)}, ticket epoch": each, f"{_name(r, first)}, lost in pruning": POINTS}
            if self.retraining:
                found |= {f"{_name(r, first)}, epochs to recover": EPOCHS, _name(r, first): POINTS}
        for first in self.first_masks:
            found |= {_gain(first): each, f"trend{_without(first)}": TREND}
        return found

    def ran(self, seeds: int) -> str:
        """What was done, in words."""
        retrained = (
            f" Each ticket then trains for {self.retraining} epochs with a new optimizer, at the same rate; it has "
            "recovered when it is within a point of the whole network that it was cut from."
            if self.retraining
            else ""
        )
        return (
            f"{self.model} of {self.width:g} times the channels on {self.data}. All searches of a seed start from one "
            f"network that told four rotations of the training images apart for {self.pretraining} epochs. They take "
            f"at most {self.epochs} epochs of SGD (constant rate {self.lr:g}, momentum 0.9, no decay), with "
            f"{self.parts} mask{'s' * (self.parts > 1)} an epoch.{retrained}"
        )


def _name(r: float, first: bool) -> str:
    return f"r = {r:g}{_without(first)}"


def _without(first: bool) -> str:
    return "" if first else " without the first mask"


def _gain(first: bool) -> str:
    return f"epochs saved{_without(first)}"
