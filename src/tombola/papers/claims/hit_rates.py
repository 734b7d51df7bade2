"""Hit rates of structures on the spiral, compared with a replication's, and the weights that pruning methods need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tombola.papers.claims.units import FRACTION, POINTS, Unit
from tombola.papers.spiral import RECIPE, STUDY, Cell, Pruning, Search, Structure, TriedStructure, hit_rates, pruned
from tombola.studies import Engine
from tombola.training import Recipe

ACCURACY, SEEDS = 0.95, 3
ROWS = Unit("rows", "rows", 1, 0.5)
WEIGHTS = Unit("weights", "weights", 1, 0.5)
BEYOND, MORE = "rows beyond binomial error, all runs", "one more than searched"
T = TypeVar("T")


@dataclass(frozen=True)
class Replicated:
    """A row of the replication.

    Args:
        runs: how many runs were made.
        hits: how many of them reached 95 %.
        higher: how many reached 99.5 %.
    """

    runs: int
    hits: int
    higher: int = 0


TABLE: Mapping[str, Replicated] = {
    "2,2,2": Replicated(120, 0),
    "2,3,3": Replicated(120, 0),
    "3,2,2": Replicated(480, 1),
    "3,2,3": Replicated(120, 1),
    "3,3,2": Replicated(300, 5),
    "3,3,3": Replicated(120, 3),
    "4,3,2": Replicated(120, 4),
    "5,3,2": Replicated(120, 8),
    "6,3,2": Replicated(60, 1),
    "16,16,16": Replicated(12, 12, 12),
}
"""Dense blocks of the width-16 network, over two learning rates and three schedules."""

METHODS = (*STUDY, "random")


@dataclass(frozen=True)
class Spiral:
    """How often the table's structures reach 95 %, and how many weights pruning methods need for it.

    Each seed stands for a third of the runs.

    Args:
        share: how many runs are made, as a share of the table's.
        methods: names of the pruning methods.
        requests: the numbers of weights that each method is asked to keep.
        epochs: of each run.
    """

    share: float = 1.0
    methods: tuple[str, ...] = METHODS
    requests: tuple[int, ...] = (18, 27, 40, 60)
    epochs: int = RECIPE.epochs

    def __call__(self, seed: int, engine: Engine, data_dir: Path | None) -> Mapping[str, float]:
        recipe = replace(RECIPE, epochs=self.epochs)
        tried = hit_rates(self.rounds, Search(ACCURACY, recipe=recipe), engine).tried
        tickets = pruned(self.grid(recipe), engine)
        parts = {row.structure: third(row.accuracies, seed) for row in tried}
        reached = [structure.weights for structure, runs in parts.items() if max(runs) >= ACCURACY]
        fewest = min(reached, default=max(self.requests) + 1)
        # Bonferroni over the table's rows.
        beyond = sum(chance_of(row) < 0.05 / len(TABLE) for row in tried)
        return {
            **{reaching(s.name): sum(run >= ACCURACY for run in runs) / len(runs) for s, runs in parts.items()},
            BEYOND: float(beyond),
            "none": 0.0,
            "searched": fewest,
            MORE: fewest + 1,
            **{needing(row.method): self.needed(row.cells, seed) for row in tickets},
        }

    @property
    def rounds(self) -> dict[Structure, int]:
        """How often each structure is trained at each of the six settings."""
        return {Structure.parse(name): max(1, round(self.share * row.runs / 6)) for name, row in TABLE.items()}

    def grid(self, recipe: Recipe) -> Pruning:
        return Pruning(self.methods, self.requests, schedules=("cosine-by-epoch",), repeats=SEEDS, recipe=recipe)

    def needed(self, cells: Sequence[Cell], repeat: int) -> float:
        """The fewest weights of a ticket that reached 95 %; if none did, one more than the largest request."""
        hits = [cell.weights for cell in cells if cell.repeat == repeat and cell.accuracy >= ACCURACY]
        return min(hits, default=max(self.requests) + 1)

    @property
    def units(self) -> dict[str, Unit]:
        return {
            **{reaching(name): POINTS for name in TABLE},
            BEYOND: ROWS,
            "none": ROWS,
            **dict.fromkeys(("searched", MORE, *map(needing, self.methods)), WEIGHTS),
        }

    def ran(self, seeds: int) -> str:
        """What was done, in words."""
        runs = 6 * sum(self.rounds.values())
        tickets = len(self.methods) * len(self.requests) * 3 * SEEDS
        return (
            f"{runs:,} runs of dense top-left blocks of the 2-16-16-16-1 network, at two learning rates and three "
            f"schedules of {self.epochs} epochs, and {tickets:,} tickets of it of "
            f"{', '.join(map(str, self.requests))} weights at three learning rates with the cosine. A seed stands for "
            f"a third of the runs; where no ticket of a method reaches 95 %, it is said to need "
            f"{max(self.requests) + 1} weights. Rows are held against the replication by Fisher's exact test on all "
            f"runs, at 95 and at 99.5 %, each at 0.05 / {2 * len(TABLE)}."
        )


@dataclass(frozen=True)
class SpiralChances:
    """How often tickets of so many weights reach 95 %, and how often a dense block of as many weights does.

    Each seed stands for a part of the runs.

    Args:
        structure: the dense block, by the widths of its hidden layers; its weights are what the tickets keep.
        methods: names of the pruning methods.
        each: runs at each of the six settings (two learning rates, three schedules).
        epochs: of each run.
    """

    structure: str = "3,3,3"
    methods: tuple[str, ...] = ("snip", "grasp", "random")
    each: int = 51
    epochs: int = RECIPE.epochs

    def __call__(self, seed: int, engine: Engine, data_dir: Path | None) -> Mapping[str, float]:
        recipe, block = replace(RECIPE, epochs=self.epochs), Structure.parse(self.structure)
        search = Search(ACCURACY, recipe=recipe)
        (tried,) = hit_rates({block: self.each}, search, engine).tried
        grid = Pruning(self.methods, (block.weights,), lrs=search.lrs, repeats=self.each, recipe=recipe)
        tickets = {row.method: [cell.accuracy for cell in row.cells] for row in pruned(grid, engine)}
        runs = {self.block: tried.accuracies, **{f"tickets of {name}": tickets[name] for name in self.methods}}
        return {
            name: sum(run >= ACCURACY for run in own[seed::SEEDS]) / len(own[seed::SEEDS]) for name, own in runs.items()
        }

    @property
    def block(self) -> str:
        """What the dense block is called."""
        return f"dense block of {Structure.parse(self.structure).weights} weights"

    @property
    def units(self) -> dict[str, Unit]:
        share = Unit("points of runs", "%", 100, 0.005, runs=6 * self.each // SEEDS, ends=FRACTION)
        return dict.fromkeys((self.block, *(f"tickets of {name}" for name in self.methods)), share)

    def ran(self, seeds: int) -> str:
        """What was done, in words."""
        weights = Structure.parse(self.structure).weights
        return (
            f"{6 * self.each} runs of the dense block {self.structure} of the 2-16-16-16-1 network, and as many "
            f"tickets of {weights} weights of each method ({', '.join(self.methods)}), at two learning rates and three "
            f"schedules of {self.epochs} epochs. What counts is how many runs reach 95 %. A seed stands for a third of "
            "the runs; all runs are held against each other by Fisher's exact test."
        )


def reaching(structure: str) -> str:
    return f"{structure} reaches 95 %"


def needing(method: str) -> str:
    return f"{method} needs"


def third(runs: Sequence[T], seed: int) -> Sequence[T]:
    """The third of the runs that a seed stands for."""
    return runs[len(runs) * seed // SEEDS : len(runs) * (seed + 1) // SEEDS]


def chance_of(tried: TriedStructure) -> float:
    """The p value of Fisher's exact test that a structure has the hit rates of the table.

    It tests at 95 and at 99.5 %, and doubles the smaller p for the two tests.
    """
    from scipy.stats import fisher_exact

    row, runs = TABLE[tried.structure.name], len(tried.accuracies)
    pairs = ((tried.hits(ACCURACY), row.hits), (tried.hits(0.995), row.higher))
    tables = [[[ours, runs - ours], [theirs, row.runs - theirs]] for ours, theirs in pairs]
    return min(1.0, 2 * min(float(fisher_exact(table).pvalue) for table in tables))
