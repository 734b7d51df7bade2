"""Tickets on another initialisation, with their units matched and as they were (Adnan et al., ICML 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tombola.connectivity import transfer
from tombola.methods import Iterative, find
from tombola.papers.claims.units import POINTS, Unit
from tombola.studies import Engine, TaskOptions, make_task
from tombola.training import Recipe, Run, train


@dataclass(frozen=True)
class MovedTickets:
    """How tickets do on another initialisation, with their units matched and as they were.

    Args:
        data: of the registry.
        model: of the registry.
        width: its width.
        rewinds: points that the tickets start from.
        epochs: of each training.
        batch: samples a step.
        lr: learning rate of SGD with momentum 0.9, with cosine decay.
        rounds: of pruning.
        density: of the ticket.
    """

    data: str = "fashion-mnist-14"
    model: str = "lenet-300-100"
    width: float = 1.0
    rewinds: tuple[str, ...] = ("init", "1ep")
    epochs: int = 8
    batch: int = 128
    lr: float = 0.1
    rounds: int = 6
    density: float = 0.05

    def __call__(self, seed: int, engine: Engine, data_dir: Path | None) -> Mapping[str, float]:
        recipe = Recipe(self.epochs, self.batch, lr=self.lr, precision="float32")
        task = make_task(TaskOptions(self.data, self.model, self.width, recipe=recipe, data_dir=data_dir))
        run = Run(seed, device=engine.executor.device, bars=engine.executor.bars)
        figures: dict[str, float] = {}
        for rewind in self.rewinds:
            method = Iterative(density=self.density, count=self.rounds, rewind=rewind)
            ticket = find(task, method, run=run.part(f"search-{rewind}", seed))
            other = 1000 + seed
            found = transfer(task, ticket, other, points=15, run=run)
            arms = {
                "own": (ticket, seed),
                "matched": (found.ticket, other),
                "unmatched": (found.unmatched, other),
            }
            for name, (own, order) in arms.items():
                figures[f"{name}, {rewind}"] = train(task, own, run=run.part(f"{name}-{rewind}", order)).metric
        lines = zip(("dense networks", "dense networks, matched"), found.lines, strict=True)
        return figures | {f"barrier of {name}": line.barrier for name, line in lines}

    @property
    def epochs_of_training(self) -> float:
        """How many epochs of training a seed takes, about."""
        return len(self.rewinds) * (self.rounds + 5) * self.epochs

    @property
    def units(self) -> dict[str, Unit]:
        arms = [f"{name}, {rewind}" for rewind in self.rewinds for name in ("own", "matched", "unmatched")]
        return dict.fromkeys((*arms, "barrier of dense networks", "barrier of dense networks, matched"), POINTS)

    def ran(self, seeds: int) -> str:
        """What was done, in words."""
        return (
            f"{self.model} at width {self.width:g} on {self.data}, {self.epochs} epochs of batches of {self.batch}, "
            f"SGD (momentum 0.9, learning rate {self.lr:g} with cosine decay). {self.rounds} rounds of pruning by "
            f"magnitude to density {self.density:g}, rewound to {' and to '.join(self.rewinds)}. Own: the ticket where "
            "it was found. Matched: its mask on another initialisation (or the same step of training from there), "
            "moved with its units, which were matched by their activations. Unmatched: the same without moving the "
            "mask. Test accuracy; the barrier is that of the test error between the two dense networks, on a line of "
            "15 points."
        )
