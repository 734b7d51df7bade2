"""Tickets of one task on another, with a new head (Chen et al., NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tombola.connectivity import carry
from tombola.evidence import Against, control
from tombola.methods import PretrainedIterative, find
from tombola.papers.claims.units import POINTS, Unit
from tombola.studies import Engine, TaskOptions, recipe_for, supervised_task
from tombola.training import Run, SupervisedTask, train


@dataclass(frozen=True)
class CarriedTickets:
    """How the tickets of each task do on each of them, beside dense networks and shuffled masks.

    Args:
        data: of the tasks, of the registry.
        model: of the registry, or `pretrained:DIR`; the same for all.
        width: its width.
        pieces: word pieces of each text; 0 for those that the data have.
        epochs: of each training.
        density: of the tickets, whose rounds remove a tenth of the original weights each.
    """

    data: tuple[str, ...] = ("vader-products", "vader-tweets")
    model: str = "minilm"
    width: float = 1.0
    pieces: int = 24
    epochs: int = 2
    density: float = 0.7

    def __call__(self, seed: int, engine: Engine, data_dir: Path | None) -> Mapping[str, float]:
        run = Run(seed, device=engine.executor.device, bars=engine.executor.bars)
        tasks = {name: self._task(name, data_dir) for name in self.data}
        method = PretrainedIterative(density=self.density)
        tickets = {name: find(task, method, run=run.part(f"search-{name}", seed)) for name, task in tasks.items()}
        figures: dict[str, float] = {}
        for there, task in tasks.items():
            arms = {f"dense on {there}": None}
            arms |= {f"of {own} on {there}": carry(tasks[own], ticket, task) for own, ticket in tickets.items()}
            shuffled = control("shuffle", Against(task, tickets[there], seed)).ticket
            for name, ticket in {**arms, f"shuffled on {there}": shuffled}.items():
                figures[name] = train(task, ticket, run=run.part(name.replace(" ", "-"), seed)).metric
        return figures

    def _task(self, name: str, data_dir: Path | None) -> SupervisedTask:
        recipe = replace(recipe_for(name), epochs=self.epochs, warmup=0.0, precision="float32")
        options = TaskOptions(name, self.model, self.width, recipe=recipe, data_dir=data_dir)
        return supervised_task(replace(options, pieces=self.pieces or None))

    @property
    def units(self) -> dict[str, Unit]:
        kinds = ("dense", *(f"of {own}" for own in self.data), "shuffled")
        return {f"{kind} on {there}": POINTS for there in self.data for kind in kinds}

    def ran(self, seeds: int) -> str:
        """What was done, in words."""
        return (
            f"{self.model} on {', '.join(self.data)}, {self.epochs} epochs of the usual recipe of the data in float32. "
            f"Rounds that remove a tenth of the original weights of the body each, to density {self.density:g}, and "
            "rewind to the first values. Of A on B: the ticket that was found on A, with a new head, trained on B. "
            "Shuffled: the mask of B's own ticket, shuffled within layers. Accuracy on the test split."
        )
