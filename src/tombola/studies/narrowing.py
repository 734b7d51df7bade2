"""The sparsest ticket of a method within a tolerance of dense: a grid of densities, then bisection, on validation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import stdev
from typing import Any

from tombola.errors import FileError, TombolaError
from tombola.evidence import MANDATORY, MARGIN, Measure, budget_gap, measure_of
from tombola.methods import Method, blocks_removed, label_of
from tombola.scores import Batch
from tombola.studies.comparison import Study, compare
from tombola.studies.execution import execute, search_all
from tombola.studies.executor import Engine
from tombola.studies.prepared import found
from tombola.studies.spec import RunSpec
from tombola.training import Split, Task, TaskWrapper, are_shares, metric_of, registered

DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)


@dataclass(frozen=True)
class Blind(TaskWrapper):
    """A task with its validation split in place of the test split, so that choices cannot see the test split.

    Args:
        task: the task.

    Examples:
        >>> from tombola.testing import toy_task
        >>> task = toy_task()
        >>> (blind,), (validation,) = Blind(task).batches("test", 0, 0), task.batches("validation", 0, 0)
        >>> bool((blind[0] == validation[0]).all())
        True
    """

    def batches(self, split: Split, seed: int, epoch: int) -> Iterable[Batch]:
        return self.task.batches("validation" if split == "test" else split, seed, epoch)

    @property
    def data_digest(self) -> str | None:
        """The task's own digest, marked; None where it has none, so that these batches are digested."""
        digest = getattr(self.task, "data_digest", None)
        return None if digest is None else f"{digest} without the test split"


@dataclass(frozen=True)
class Point:
    """A density that was tried.

    Args:
        density: the kept share of units, in (0, 1).
        differences: ticket minus dense in the validation metric, one number a seed.
        within: whether their mean is within the tolerance.
        why: why the method cannot reach the density, without differences then; "" if it can.
    """

    density: float
    differences: tuple[float, ...]
    within: bool
    why: str = ""

    @property
    def mean(self) -> float | None:
        return None if self.why else math.fsum(self.differences) / len(self.differences)


@dataclass(frozen=True)
class Narrowed:
    """The densities that were tried, and the study of the sparsest one within the tolerance.

    Args:
        method: what the method is called.
        tolerance: how much worse than dense the mean may be, in the metric's unit.
        points: the densities, in the order in which they were tried.
        measure: what the metric is.
        study: tickets of the density found, dense and controls on the test split; None if there is no such density.
    """

    method: str
    tolerance: float
    points: tuple[Point, ...]
    measure: Measure
    study: Study | None = None

    @property
    def density(self) -> float | None:
        """The sparsest density within the tolerance; None if there is none."""
        return min((point.density for point in self.points if point.within), default=None)

    @property
    def exceptions(self) -> tuple[Point, ...]:
        """Densities that failed although a sparser one is within the tolerance."""
        sparsest = self.density
        failed = [point for point in self.points if not (point.within or point.why)]
        return tuple(point for point in failed if sparsest is not None and point.density > sparsest)

    @property
    def sentence(self) -> str:
        """The answer in plain words, with its limits."""
        unreached = [point for point in self.points if point.why]
        listed = ", ".join(f"{point.density:.4g}" for point in unreached)
        tried, sparsest = f"{len(self.points)} densities tried", self.density
        tried += f", of which {listed} cannot be had: {unreached[0].why}" if unreached else ""
        within = f"within {self.measure.limit(self.tolerance)} of dense on the validation split"
        if sparsest is None:
            densest = max(point.density for point in self.points if not point.why)
            return f"no ticket of {self.method} is {within}, up to a density of {densest:.4g}: {tried}"
        sparser = max((p for p in self.points if p.density < sparsest), key=lambda p: p.density, default=None)
        below = "no sparser one was tried: give some"
        if sparser is not None:
            below = f"the next sparser one, {sparser.density:.4g}, {'cannot be had' if sparser.why else 'is not'}"
        denser = ", ".join(f"{point.density:.4g}" for point in self.exceptions)
        caution = f"; denser ones are not, though ({denser}), so look at the seeds' spread" if denser else ""
        return f"the sparsest ticket of {self.method} {within} keeps {sparsest:.4g}; {below}{caution} ({tried})"

    def to_json(self) -> dict[str, Any]:
        """Everything but the study, as plain values."""
        points = [asdict(point) | {"mean": point.mean} for point in self.points]
        exceptions = [point.density for point in self.exceptions]
        return {"sentence": self.sentence, "density": self.density, "tried": points, "exceptions": exceptions}


def narrow(
    task: Task,
    method: Method,
    engine: Engine,
    *,
    tolerance: float | None = None,
    densities: Sequence[float] = DENSITIES,
    halvings: int = 3,
    seeds: int = 3,
    controls: Sequence[str] = MANDATORY,
) -> Narrowed:
    """Find the sparsest ticket whose mean validation metric is at most `tolerance` worse than dense, over seeds.

    The method tries each density of the grid, so that accuracy that rises and falls with density shows. Then the gap
    below the sparsest density within the tolerance is halved, in its logarithm. The test split is read once, for the
    density found, beside dense and controls. A density counts as not good enough, with the reason, where the method
    cannot keep so few units or training diverges.

    Args:
        task: the task; it needs validation samples.
        method: the method, whose own density does not matter.
        engine: where results are kept, and what carries runs out.
        tolerance: a difference in the metric's unit; None takes half a point for a share, and for other numbers the
            spread of the dense network's over its seeds (one standard deviation).
        densities: the grid, each in (0, 1).
        halvings: how often the gap is halved.
        seeds: how many seeds each density is tried with, from 0 on.
        controls: of the density found.

    Returns:
        All densities tried, and the study of the one found.

    Raises:
        TombolaError: if an argument is out of range, the task has no validation samples, or no density can be reached.
    """
    _check(method, tolerance, densities, halvings, seeds)
    blind = Blind(task)
    if not list(itertools.islice(blind.batches("test", 0, 0), 1)):
        raise TombolaError(
            "the task has no validation samples to choose a density by; give some, since the test split must not choose"
        )
    measure, tolerance = _judged_by(task, blind, engine, tolerance, seeds)
    points: list[Point] = []
    errors: list[TombolaError] = []

    def try_at(density: float) -> str:
        try:
            at_density = replace(method, density=density)  # ty: ignore[invalid-argument-type]
            points.append(_point(task, blind, at_density, engine, measure.sign, tolerance, seeds))
        except FileError:  # a file that cannot be read or written says nothing of the density
            raise
        except TombolaError as error:
            points.append(Point(density, (), within=False, why=str(error)))
            errors.append(error)
        mean = points[-1].mean
        return f"{density:.4g}: {'cannot be had' if mean is None else f'{measure.signed(mean)} {measure.unit}'}"

    with engine.executor.bars.track("densities", len(densities) + halvings) as tick:
        for density in sorted(set(densities), reverse=True):
            tick(try_at(density))
        if len(errors) == len(points):
            raise errors[0]
        for _ in range(halvings):
            gap = _gap(points)
            tick("" if gap is None else try_at(math.sqrt(math.prod(gap))))
    narrowed = Narrowed(label_of(method), tolerance, tuple(points), measure)
    if narrowed.density is None:
        return narrowed
    sparsest = replace(method, density=narrowed.density)  # ty: ignore[invalid-argument-type]
    study = compare(task, [sparsest], seeds=seeds, controls=controls, margin=tolerance, engine=engine)
    return replace(narrowed, study=study)


def _judged_by(task: Task, blind: Task, engine: Engine, tolerance: float | None, seeds: int) -> tuple[Measure, float]:
    """What the metric is, and the tolerance; dense trains for it unless the metric is known to be a share."""
    metric = metric_of(task)
    if registered(metric) and are_shares(metric, []):
        measure, usual = measure_of(task, []), MARGIN
    else:
        dense = execute([RunSpec(blind, seed=seed) for seed in range(seeds)], engine.store, engine.executor)
        values = [result.metric for result in dense]
        measure = measure_of(task, values)
        if tolerance is None and not measure.share and seeds < 2:
            raise TombolaError(f"one seed shows no spread of {measure.name}; give a tolerance, or at least two seeds")
        usual = MARGIN if measure.share or seeds < 2 else stdev(values)
    if tolerance is not None and measure.share and tolerance >= 1:
        raise TombolaError(f"the tolerance is {tolerance:g}; give a share below 1, as 0.005 for half a point")
    return measure, usual if tolerance is None else tolerance


def _point(task: Task, blind: Task, method: Method, engine: Engine, sign: int, tolerance: float, seeds: int) -> Point:
    """The tickets of a density against dense, searched for on the task and trained on the blind one."""
    # A search does not read the test split; on the task itself `compare` can use it again.
    specs = []
    searches = search_all([RunSpec(task, method, seed=seed) for seed in range(seeds)], engine)
    for seed, ticket in enumerate(map(found, searches)):
        specs += [RunSpec(blind, ticket, seed=seed), RunSpec(blind, seed=seed, extra_epochs=budget_gap(ticket, blind))]
    metrics = [result.metric for result in execute(specs, engine.store, engine.executor)]
    differences = tuple(ticket - dense for ticket, dense in zip(metrics[::2], metrics[1::2], strict=True))
    return Point(method.density, differences, sign * math.fsum(differences) / seeds >= -tolerance)


def _gap(points: Sequence[Point]) -> tuple[float, float] | None:
    """The sparsest density within the tolerance and the next sparser one, which is not; None without both."""
    sparsest = min((point.density for point in points if point.within), default=None)
    below = max((point.density for point in points if sparsest is not None and point.density < sparsest), default=None)
    return None if sparsest is None or below is None else (sparsest, below)


def _check(method: Method, tolerance: float | None, densities: Sequence[float], halvings: int, seeds: int) -> None:
    if blocks_removed(method) is not None:
        raise TombolaError(f"'{label_of(method)}' counts the blocks that go; give a method that keeps a density")
    if method.density_kind == "outcome":
        raise TombolaError(f"the density of '{label_of(method)}' is found, not asked for; give a method that keeps one")
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise TombolaError(f"the tolerance is {tolerance:g}; give at least 0, as 0.005 for half a point")
    if not densities:
        raise TombolaError("there is no density to try; give some, as --densities 0.5 0.1 0.02")
    for density in densities:
        if not 0 < density < 1:
            raise TombolaError(f"density is {density:g}; give shares of weights to keep, above 0 and below 1")
    if halvings < 0 or seeds < 1:
        raise TombolaError(f"halvings is {halvings} and seeds {seeds}; give at least 0 and 1")
