"""The sparsest ticket of a method within a tolerance of dense: a grid of densities, then bisection, by validation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tombola.errors import FileError, TombolaError
from tombola.evidence import MANDATORY, MARGIN, budget_gap
from tombola.methods import Method, blocks_removed, label_of
from tombola.scores import Batch
from tombola.studies.comparison import Study, compare
from tombola.studies.execution import execute
from tombola.studies.executor import Engine
from tombola.studies.prepared import search
from tombola.studies.spec import RunSpec
from tombola.training import Split, Task, TaskWrapper

DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)


@dataclass(frozen=True)
class Blind(TaskWrapper):
    """The same task for who must not see its test split: in its place stands the validation split."""

    def batches(self, split: Split, seed: int, epoch: int) -> Iterable[Batch]:
        return self.task.batches("validation" if split == "test" else split, seed, epoch)

    @property
    def data_digest(self) -> str | None:
        """The task's own, marked; None, and so that of the batches seen, where it has none."""
        own = getattr(self.task, "data_digest", None)
        return None if own is None else f"{own} without the test split"


@dataclass(frozen=True)
class Point:
    """One density that was tried: its tickets minus dense on the validation split, seed by seed.

    why: the density cannot be had, and there are no differences.
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
    """What was tried, in that order; the sparsest density within the tolerance, None if there is none; its verdict.

    study: tickets of that density, dense and controls with the test split, read once; None without a density.
    """

    method: str
    tolerance: float
    points: tuple[Point, ...]
    study: Study | None = None

    @property
    def density(self) -> float | None:
        return min((point.density for point in self.points if point.within), default=None)

    @property
    def exceptions(self) -> tuple[Point, ...]:
        """Densities that failed though a sparser one is within the tolerance: accuracy does not just fall."""
        found = self.density
        failed = [point for point in self.points if not (point.within or point.why)]
        return tuple(point for point in failed if found is not None and point.density > found)

    @property
    def sentence(self) -> str:
        """The answer in plain words, with what it does not say."""
        missing = [point for point in self.points if point.why]
        lacking = ", ".join(f"{point.density:.4g}" for point in missing)
        tried, found = f"{len(self.points)} densities tried", self.density
        tried += f", of which {lacking} cannot be had: {missing[0].why}" if missing else ""
        within = f"within {100 * self.tolerance:g} points of dense on the validation split"
        if found is None:
            densest = max(point.density for point in self.points if not point.why)
            return f"no ticket of {self.method} is {within}, up to a density of {densest:.4g}: {tried}"
        sparser = max((p for p in self.points if p.density < found), key=lambda own: own.density, default=None)
        below = "no sparser one was tried: give some"
        if sparser is not None:
            below = f"the next sparser one, {sparser.density:.4g}, {'cannot be had' if sparser.why else 'is not'}"
        odd = ", ".join(f"{point.density:.4g}" for point in self.exceptions)
        said = f"; denser ones are not, though ({odd}), so look at the seeds' spread" if odd else ""
        return f"the sparsest ticket of {self.method} {within} keeps {found:.4g}; {below}{said} ({tried})"

    def to_json(self) -> dict[str, Any]:
        """All but the study as plain values."""
        points = [asdict(point) | {"mean": point.mean} for point in self.points]
        exceptions = [point.density for point in self.exceptions]
        return {"sentence": self.sentence, "density": self.density, "tried": points, "exceptions": exceptions}


def narrow(
    task: Task,
    method: Method,
    engine: Engine,
    *,
    tolerance: float = MARGIN,
    densities: Sequence[float] = DENSITIES,
    halvings: int = 3,
    seeds: int = 3,
    controls: Sequence[str] = MANDATORY,
) -> Narrowed:
    """The sparsest ticket whose mean difference to dense is above −tolerance, paired over seeds, by validation.

    Every density of the grid is tried, so that accuracy that does not just fall with density is seen; then the gap
    below the sparsest that is within the tolerance is halved (in its logarithm) so often. The test split is read once,
    for the density found, beside dense and controls. A density that cannot be had, since the method cannot keep so few
    units or its training diverges, says why and counts as not good enough; TombolaError where that is so of all.
    """
    _check(method, tolerance, densities, halvings, seeds)
    blind = Blind(task)
    if not list(itertools.islice(blind.batches("test", 0, 0), 1)):
        raise TombolaError("the task has no validation samples, and the test split must not choose; give some")
    points: list[Point] = []
    errors: list[TombolaError] = []

    def try_at(density: float) -> str:
        try:
            own = replace(method, density=density)  # ty: ignore[invalid-argument-type]
            points.append(_point(task, blind, own, engine, tolerance, seeds))
        except FileError:
            raise
        except TombolaError as error:
            points.append(Point(density, (), within=False, why=str(error)))
            errors.append(error)
        mean = points[-1].mean
        return f"{density:.4g}: {'cannot be had' if mean is None else f'{100 * mean:+.2f} points'}"

    with engine.executor.bars.track("densities", len(densities) + halvings) as tick:
        for density in sorted(set(densities), reverse=True):
            tick(try_at(density))
        if len(errors) == len(points):
            raise errors[0]
        for _ in range(halvings):
            gap = _gap(points)
            tick("" if gap is None else try_at(math.sqrt(math.prod(gap))))
    found = Narrowed(label_of(method), tolerance, tuple(points))
    if found.density is None:
        return found
    own = replace(method, density=found.density)  # ty: ignore[invalid-argument-type]
    study = compare(task, [own], seeds=seeds, controls=controls, margin=tolerance, engine=engine)
    return replace(found, study=study)


def _point(task: Task, blind: Task, method: Method, engine: Engine, tolerance: float, seeds: int) -> Point:
    """The tickets of a density against dense: found on the task as ever, trained on the blind one."""
    specs = []
    for seed in range(seeds):
        ticket, _ = search(task, method, seed, engine.store, engine.executor)
        specs += [RunSpec(blind, ticket, seed=seed), RunSpec(blind, seed=seed, extra_epochs=budget_gap(ticket, blind))]
    metrics = [result.metric for result in execute(specs, engine.store, engine.executor)]
    differences = tuple(own - dense for own, dense in zip(metrics[::2], metrics[1::2], strict=True))
    return Point(method.density, differences, math.fsum(differences) / seeds >= -tolerance)


def _gap(points: Sequence[Point]) -> tuple[float, float] | None:
    """The sparsest density within the tolerance and the next sparser one, which is not; None without both."""
    found = min((point.density for point in points if point.within), default=None)
    below = max((point.density for point in points if found is not None and point.density < found), default=None)
    return None if found is None or below is None else (found, below)


def _check(method: Method, tolerance: float, densities: Sequence[float], halvings: int, seeds: int) -> None:
    if blocks_removed(method) is not None:
        raise TombolaError(f"'{label_of(method)}' counts the blocks that go; give a method that keeps a density")
    if method.density_kind == "outcome":
        raise TombolaError(f"the density of '{label_of(method)}' is found, not asked; give a method that keeps one")
    if not 0 <= tolerance < 1:
        raise TombolaError(f"the tolerance is {tolerance:g}; give a share of at least 0 and below 1, as 0.005")
    if not densities:
        raise TombolaError("there is no density to try; give some, as --densities 0.5 0.1 0.02")
    for density in densities:
        if not 0 < density < 1:
            raise TombolaError(f"density is {density:g}; give shares of weights to keep, above 0 and below 1")
    if halvings < 0 or seeds < 1:
        raise TombolaError(f"halvings is {halvings} and seeds {seeds}; give at least 0 and 1")
