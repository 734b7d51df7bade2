"""A trained network made smaller, fine-tuned, and checked against dense and against its own size from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from tombola.errors import TombolaError
from tombola.evidence import Comparison, Measure, measure_of, paired_comparison
from tombola.methods import Method, Sized, counted
from tombola.structure import Granularity, sizes_of
from tombola.studies.execution import execute, search
from tombola.studies.executor import Engine
from tombola.studies.run_folder import RunFolder
from tombola.studies.spec import RunSpec
from tombola.studies.targets import aimed
from tombola.tickets import Seed, Ticket, digest_of, explicit_units, tensors_of
from tombola.training import Run, Task, evaluate, mixed

FEWEST = 3
"""Seeds from which on an interval says something."""
SAME_SIZE = "same-size"
"""What the dense network of the smaller one's size is called, which trains from scratch."""


@dataclass(frozen=True)
class Smaller:
    """What became of a trained network.

    Args:
        ticket: the units that stay, which start from the trained weights.
        folder: where the ticket is.
        trained: where the ticket's training with the first seed is, with the smaller network that it came to.
        aim: the target, and what was counted; None where a density was given.
        counted: FLOPs and parameters that stay, as shares of the whole network's.
        given: the test metric of the trained network as it was given.
        metrics: by arm, the test metric of each seed: "ticket", the smaller network after fine-tuning; "dense", the
            given network trained on for as long; "same-size", a network of the smaller one's shape from scratch.
        measure: what the metric is.
        comparisons: of the smaller network with each other arm, where there are seeds enough for an interval.
    """

    ticket: Ticket
    folder: RunFolder
    trained: RunFolder
    aim: Sized | None
    counted: Mapping[str, float]
    given: float
    metrics: Mapping[str, tuple[float, ...]]
    measure: Measure
    comparisons: tuple[Comparison, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        metrics = {name: list(values) for name, values in self.metrics.items()}
        told: dict[str, Any] = {"ticket": str(self.folder.ticket_path), "given": self.given, "metrics": metrics}
        told |= {"counted": dict(self.counted), "sentences": self.sentences}
        told |= {"comparisons": [asdict(own) for own in self.comparisons]}
        return told | ({} if self.aim is None else {"target": self.aim.to_json()})

    def spread(self, values: Sequence[float]) -> str:
        """A mean, with the lowest and highest where there are several."""
        mean, *ends = (self.measure.text(own) for own in (fmean(values), min(values), max(values)))
        return mean if len(values) == 1 else f"{mean} ({ends[0]} to {ends[1]})"

    @property
    def sentences(self) -> list[str]:
        """How the smaller network compares with each other arm, and with the network as it was given."""
        ticket = self.metrics["ticket"]
        outcome = {own.against: f": {own.outcome}" for own in self.comparisons}
        others = {name: values for name, values in self.metrics.items() if name != "ticket"}
        gaps = {ARMS[name]: (values, outcome.get(name, "")) for name, values in others.items()}
        gaps = {"the network as it was given": ((self.given,) * len(ticket), ""), **gaps}
        said = []
        for name, (values, word) in gaps.items():
            gap = fmean(own - other for own, other in zip(ticket, values, strict=True))
            said.append(f"Against {name}: {self.measure.signed(gap)} {self.measure.unit}".rstrip() + f"{word}.")
        return said if self.comparisons else [*said, "With --seeds 3 or more, an interval says what of that is chance."]


ARMS = {"dense": "the whole network, trained on for as long", SAME_SIZE: "a dense network of its size, from scratch"}
"""What the other arms are called in sentences."""


def density_of(task: Task, granularity: Granularity, scope: Mapping[str, float]) -> float:
    """The share of all units that stay where each group has a density of its own.

    Args:
        task: gives the network.
        granularity: the kind of the units.
        scope: the density of each group, by name.

    Raises:
        TombolaError: if a group is unknown or has no density, or a density is out of range.
    """
    model = task.build(0)
    sizes = sizes_of(granularity.units(model, Run(0).probe(task)))
    kept = explicit_units({name: (size,) for name, size in sizes.items()}, scope)
    return round(kept.sum()) / sum(sizes.values())


def make_smaller(
    task: Task,
    method: Method,
    engine: Engine,
    *,
    untrained: Task | None = None,
    seeds: int = 1,
    spent: float = 0.0,
    targets: Mapping[str, Any] = {},
) -> Smaller:
    """Cut a trained network, fine-tune it by the task's recipe, and compare it over seeds.

    Args:
        task: builds the trained network, whatever the seed; its recipe is that of the fine-tuning.
        method: chooses the units, by a score of the trained network.
        engine: where runs are kept, and what carries them out.
        untrained: the same task with the network untrained, for one of the same size from scratch; None leaves it out.
        seeds: how many data orders each arm is trained with.
        spent: epochs that the trained network has had, which the one from scratch gets, too.
        targets: fields of `tombola.shrinking.Targets`.

    Raises:
        TombolaError: if the task builds another network with another seed, or the target cannot be reached.
    """
    if seeds < 1 or spent < 0:
        raise TombolaError(f"seeds is {seeds} and the epochs that were spent are {spent:g}; give at least 1 and 0")
    if digest_of(tensors_of(task.build(0))) != digest_of(tensors_of(task.build(1))):
        raise TombolaError("the network begins untrained; give --checkpoint FILE, with its trained weights")
    method, aim = aimed(task, method, targets, engine.store, engine.executor)
    ticket, folder = search(task, method, 0, engine.store, engine.executor)
    run = Run(0, device=engine.executor.device)
    given = evaluate(task, task.build(0).to(run.device), "test", task.recipe)[0]
    specs: dict[str, list[RunSpec]] = {
        "ticket": [RunSpec(task, ticket, seed=seed, keeps=seed == 0) for seed in range(seeds)],
        "dense": [RunSpec(task, seed=seed) for seed in range(seeds)],
    }
    if untrained is not None:
        specs[SAME_SIZE] = [_from_scratch(untrained, ticket, seed, spent) for seed in range(seeds)]
    made = execute([spec for own in specs.values() for spec in own], engine.store, engine.executor)
    values = iter(result.metric for result in made)
    metrics = {name: tuple(next(values) for _ in own) for name, own in specs.items()}
    measure = measure_of(task, [given, *(value for own in metrics.values() for value in own)])
    comparisons = [
        paired_comparison(metrics["ticket"], own, name, measure=measure)
        for name, own in metrics.items()
        if name != "ticket" and seeds >= FEWEST
    ]
    trained, sizes = RunFolder(engine.store.root / made[0].digest), counted(task, ticket, run)
    return Smaller(ticket, folder, trained, aim, sizes, given, metrics, measure, tuple(comparisons))


def _from_scratch(task: Task, ticket: Ticket, seed: int, spent: float) -> RunSpec:
    """The smaller network on new weights, which is a dense network of its size."""
    own = mixed(seed, 12)
    start = Seed(own, digest_of(tensors_of(task.build(own))))
    return RunSpec(task, replace(ticket, start=start, recipe={}), seed=seed, extra_epochs=spent, label=SAME_SIZE)
