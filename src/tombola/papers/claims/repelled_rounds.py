"""Iterative pruning whose rounds are kept from the optima of earlier rounds, or drawn to them (Maene et al., 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola.connectivity import Ends, stability
from tombola.papers.claims.batch_sizes import RIGHT_ANGLES
from tombola.papers.claims.units import GAIN, POINTS, Unit
from tombola.scores import magnitude
from tombola.structure import prunable
from tombola.studies import Engine, TaskOptions, supervised_task
from tombola.tickets import Mask, select
from tombola.training import Recipe, Run, SupervisedTask, Task, accuracy, evaluate, mixed

Weights = Mapping[str, Tensor]
APART = {1: "angle of optima of consecutive rounds", 2: "angle of optima two rounds apart"}
CELLS = {
    "stable": ("stable", "", False),
    "stable, repelled": ("stable", "repelling", False),
    "stable, repelled weakly": ("stable", "weakly", False),
    "stable, repelled from the last": ("stable", "repelling", True),
    "unstable": ("unstable", "", False),
    "unstable, attracted": ("unstable", "attracting", False),
}
"""What is searched: in which training, with which λ of the protocol, and whether by the last optimum alone."""


@dataclass(frozen=True, eq=False)
class Repelled:
    """A forward pass that gives outputs, and in training what is added to the loss for lying near earlier optima.

    Args:
        optima: the weights of earlier optima.
        strength: λ, what the mean squared cosine is multiplied by; below 0 it draws to the optima.
    """

    optima: Sequence[Weights]
    strength: float

    def __call__(self, model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
        outputs = model(inputs)
        if not (self.optima and model.training):
            return outputs, outputs.new_zeros(())
        weights = torch.cat([weight.flatten() for weight in prunable(model).values()])
        earlier = torch.stack([torch.cat([own[name].flatten() for name in prunable(model)]) for own in self.optima])
        # Dead weights are zero in both; those of an earlier optimum that died since do not count.
        earlier = earlier * (weights != 0)
        cosines = F.cosine_similarity(earlier, weights[None], dim=1)
        return outputs, self.strength * cosines.square().mean()


def loss_of(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    """Cross-entropy, and what lies beside the outputs."""
    return F.cross_entropy(outputs[0], targets) + outputs[1]


def metric_of(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    """The accuracy of the outputs."""
    return accuracy(outputs[0], targets)


@dataclass(frozen=True)
class RepelledRounds:
    """Whether tickets are found without coming back to earlier optima, where training is stable and where it is not.

    Args:
        data: of the registry.
        model: of the registry.
        stable: the size of a batch with which training from the initialisation is stable.
        unstable: a size with which it is not.
        epochs: of each training with the stable size, and with the unstable size.
        lr: learning rate of SGD with momentum 0.9.
        rounds: of pruning.
        density: of the ticket.
        repelling: λ of the repellent loss.
        weakly: a weaker one.
        attracting: λ of the attracting loss, below 0.
    """

    data: str = "fashion-mnist-14"
    model: str = "lenet-300-100"
    stable: int = 1024
    unstable: int = 16
    epochs: tuple[int, int] = (20, 4)
    lr: float = 0.05
    rounds: int = 6
    density: float = 0.05
    repelling: float = 2.0
    weakly: float = 0.5
    attracting: float = -1.0

    def __call__(self, seed: int, engine: Engine, data_dir: Path | None) -> Mapping[str, float]:
        run = Run(seed, device=engine.executor.device, bars=engine.executor.bars)
        stable, unstable = (
            self.task(batch, epochs, data_dir)
            for batch, epochs in zip((self.stable, self.unstable), self.epochs, strict=True)
        )
        figures = {}
        for name, task in (("stable", stable), ("unstable", unstable)):
            copies = stability(task, points=15, statistics=("anew",), seed=seed, run=run)
            figures[f"instability, {name}"] = copies.points[0].barrier
        for name, (of, loss, only_last) in CELLS.items():
            task = stable if of == "stable" else unstable
            strength = getattr(self, loss) if loss else 0.0
            figures |= {f"{what}, {name}": value for what, value in self._cell(task, strength, only_last, run)}
        return figures

    def task(self, batch: int, epochs: int, data_dir: Path | None) -> SupervisedTask:
        """What is learnt at a size of the batch."""
        recipe = Recipe(epochs, batch, lr=self.lr, weight_decay=0.0, schedule="constant", precision="float32")
        return supervised_task(TaskOptions(self.data, self.model, recipe=recipe, data_dir=data_dir))

    def _cell(self, task: SupervisedTask, strength: float, only_last: bool, run: Run) -> Iterator[tuple[str, float]]:
        """The figures of one search by name: ticket, fresh init, and angles between optima."""
        mask, masks, networks, optima = None, [], [], []
        for number in range(self.rounds + 1):
            beside = _beside(task, optima[-1:] if only_last else optima, strength)
            networks.append(_trained(beside, run.seed, mask, run))
            masks.append(mask or Mask.full(dict(prunable(networks[-1]))))
            optima.append({name: weight.detach().clone() for name, weight in prunable(networks[-1]).items()})
            if number < self.rounds:
                mask = select(magnitude(networks[-1]), self.density ** ((number + 1) / self.rounds), within=mask)
        fresh = _trained(beside, mixed(run.seed, 12), mask, run)
        plain = _beside(task, (), 0.0)
        ticket, control = (evaluate(plain, own, "test", task.recipe)[0] for own in (networks[-1], fresh))
        yield from (("ticket", ticket), ("fresh init", control), ("advantage", ticket - control))
        for apart in (1, 2):
            later = range(apart, self.rounds + 1)
            angles = [Ends(networks[at - apart], networks[at], (masks[at], masks[at])).angle for at in later]
            yield APART[apart], fmean(angles)

    @property
    def epochs_of_training(self) -> float:
        """How many epochs of training a seed takes, about."""
        return len(CELLS) * (self.rounds + 2) * max(self.epochs)

    @property
    def units(self) -> dict[str, Unit]:
        return {
            **{f"instability, {name}": POINTS for name in ("stable", "unstable")},
            **{f"{what}, {name}": POINTS for what in ("ticket", "fresh init") for name in CELLS},
            **{f"advantage, {name}": GAIN for name in CELLS},
            **{f"{APART[apart]}, {name}": RIGHT_ANGLES for apart in APART for name in CELLS},
        }

    def ran(self, seeds: int) -> str:
        """What was done, in words."""
        return (
            f"{self.model} on {self.data}, SGD (momentum 0.9, learning rate {self.lr:g}, constant, no weight decay): "
            f"stable with batches of {self.stable} for {self.epochs[0]} epochs, unstable with {self.unstable} for "
            f"{self.epochs[1]}. {self.rounds} rounds of pruning by magnitude, rewound to the initialisation, to "
            f"density {self.density:g}. The loss has beside it λ times the mean of the squared cosines with all "
            f"earlier optima, or with the last one alone: λ = {self.repelling:g} repels, {self.weakly:g} weakly, "
            f"{self.attracting:g} attracts. "
            "Fresh init: the ticket's mask on another initialisation, trained with the same loss. Accuracy on "
            "the test split."
        )


def _trained(task: Task, init_seed: int, mask: Mask | None, run: Run) -> nn.Module:
    """The network trained from an initialisation in the order of the run's seed."""
    model = task.build(init_seed).to(run.device)
    part = Run(run.seed, device=run.device, bars=run.bars)
    part.stage("train", task, model, attached=mask)
    return model


def _beside(task: SupervisedTask, optima: Sequence[Weights], strength: float) -> SupervisedTask:
    """The task with the cosines beside its loss."""
    return replace(task, loss=loss_of, metric=metric_of, forward=Repelled(tuple(optima), strength))
