"""A study in a file of TOML: tasks, recipes, methods with settings, densities and seeds."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from tombola.errors import FileError, TombolaError, unknown
from tombola.evidence import MANDATORY, ONE_LOOK, Better, EachSeed, Looks, control_kind
from tombola.files import content_of, printable
from tombola.methods import Method, shaped_as, sized
from tombola.registry import CONTROLS
from tombola.shrinking import check_takes_target, target_of
from tombola.structure import granularity
from tombola.studies.comparison import Until, labelled
from tombola.studies.grid import Grid
from tombola.studies.measures import further
from tombola.studies.named_methods import at_sizes, method_named, with_values
from tombola.studies.plan import Plan
from tombola.studies.task_options import TaskOptions, default_options
from tombola.studies.tasks import make_task
from tombola.training import Recipe, Task

T = TypeVar("T")

PLAN = "study.toml"
"""What the file is called in the folder of its study."""
LARGEST, DOTS = 2**18, 2_000
"""Bytes of a study file, and dots in one of its lines, each of which may nest tables further."""
MOST = 100_000
"""Searches and runs of a study."""
PATHS = ("data_dir", "checkpoint")
"""Options of a task that choose a folder or a file."""
Table = dict[str, Any]


@dataclass(frozen=True)
class MethodTable:
    """One of `[[methods]]`.

    Args:
        method: its name, or that of a score, or module:name.
        densities: the shares of units to keep; the method's own if none are given.
        remove: numbers of blocks to remove, for methods that remove whole blocks.
        settings: of the method, by name.
        target: what the smaller network shall be in place of a density: flops, parameters, round_to and protect, as
            `tombola compare` has them. What a clock would decide is not the same for all workers.
        label: what reports call it; its preset and what differs from it if nothing.
    """

    method: str
    densities: tuple[float, ...] = ()
    remove: tuple[int, ...] = ()
    settings: Table = field(default_factory=dict)
    target: Table = field(default_factory=dict)
    label: str = ""

    def __post_init__(self) -> None:
        asked = {_plain(name): tuple(own) if isinstance(own, list) else own for name, own in self.target.items()}
        if target_of(asked).is_measured:
            raise TombolaError(
                f"the target of '{self.method}' is measured by a clock, which each worker reads otherwise; find the "
                "density once (tombola find METHOD --speedup 2), and give that"
            )
        if target_of(asked).asked and (self.densities or self.remove or "density" in self.settings):
            raise TombolaError(f"'{self.method}' has a size and a target, which both say how much stays; leave one out")
        object.__setattr__(self, "target", asked)

    def methods(self) -> list[Method]:
        """The method at each size."""
        kind = self.settings.get("granularity")
        if isinstance(kind, str) and target_of(self.target).asked:  # n:m refuses the density that nobody gave
            check_takes_target(granularity(kind))
        method = with_values(method_named(self.method), self.settings)
        return at_sizes(method, self.densities, self.remove) if self.densities or self.remove else [method]


@dataclass(frozen=True)
class StudyFile:
    """What a study file says: every task with every recipe, method, size and seed.

    Args:
        methods: what is compared.
        tasks: what is learnt: options of a task, as `tombola compare` has them, and `recipe` with those of a recipe.
        recipes: further options of the recipe; each task is learnt with each of them.
        seeds: how many repetitions, 3 if nothing; or their numbers. Until it is decided: the most, 20 if nothing.
        until: "seeds" runs them all; "decided" looks after each seed from the third, and ends each verdict as soon as
            it is decided, or as more seeds are futile.
        equal_cost: rank the methods at equal cost, too: cheaper ones, and dense, then train for longer.
        controls: what each ticket must beat.
        margin: the difference in the metric that is too small to matter, in its own unit; the measure's own if None.
        better: which values of the metric are better, "lower" or "higher"; of a metric of yours what its name says if
            nothing.
        also: further measures, in which a ticket may not be worse than dense, as `tombola compare` has them.
        title: of the report.
    """

    methods: tuple[MethodTable, ...]
    tasks: tuple[Table, ...] = ({},)
    recipes: tuple[Table, ...] = ({},)
    seeds: int | tuple[int, ...] | None = None
    until: Until = "seeds"
    equal_cost: bool = False
    controls: tuple[str, ...] = MANDATORY
    margin: Annotated[float, msgspec.Meta(ge=0)] | None = None
    better: Better | Literal[""] = ""
    also: tuple[str, ...] = ()
    title: str = ""

    def __post_init__(self) -> None:
        for name in ("methods", "tasks", "recipes"):
            if not getattr(self, name):
                raise TombolaError(f"the study has no {name}; give at least one [[{name}]]")
        count = self._count()
        sizes = sum(max(1, len(table.densities), len(table.remove)) for table in self.methods)
        runs = len(self.tasks) * len(self.recipes) * count * (1 + sizes * (2 + len(self.controls)))
        if runs > MOST:
            raise TombolaError(f"the study has {runs:,} runs and searches; give at most {MOST:,}, and several studies")
        if not self.numbers or min(self.numbers) < 0 or len(set(self.numbers)) < len(self.numbers):
            raise TombolaError(f"seeds is {self.seeds}; give a number from 1, or different numbers from 0")
        self._looks()
        for control in self.controls:
            CONTROLS.entry(control_kind(control))
        further(self.also)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The seeds."""
        return self.seeds if isinstance(self.seeds, tuple) else tuple(range(self._count()))

    @staticmethod
    def read(path: str | Path) -> StudyFile:
        """Read a file.

        Raises:
            FileError: it cannot be read, or is no TOML.
            TombolaError: it says what no study can have; the error names the place.
        """
        try:
            content = printable(_toml(content_of(path, LARGEST).decode()))
        except OSError as error:
            raise FileError(f"cannot read {path}: {error.strerror or error}; give the path of a study file") from error
        except ValueError as error:  # of TOML, or of UTF-8
            raise FileError(f"{path} is no TOML of a study ({error}); correct that place") from error
        try:
            return _as(StudyFile, content, "")
        except TombolaError as error:
            raise TombolaError(f"{path}: {error}") from error

    def named_code(self) -> list[str]:
        """What the file names that would be imported and called, or chooses a folder.

        That is every text with a colon where one is looked up, whatever stands before it: Python imports files of any
        name. Only a label is shown alone, and a granularity is one of a few words.
        """
        tables = [(table.method, _but(table.settings, "granularity")) for table in self.methods]
        code = [text for table in (*tables, *self.tasks) for text in _texts(table) if ":" in text]
        return [*code, *(str(table[key]) for table in self.tasks for key in table if _plain(key) in PATHS)]

    def grids(self) -> list[Grid]:
        """What is compared, for each task and recipe."""
        also = further(self.also)
        plans = [
            Plan(make_task(options), self.controls, self.margin, self.better or None, also, self._looks())
            for options in self.options()
        ]
        return [Grid(plan, self._subjects(plan.task), self.numbers, self.equal_cost) for plan in plans]

    def options(self) -> list[TaskOptions]:
        """The tasks with their recipes."""
        return [
            _options(task, recipe, f"tasks[{number}]", f"recipes[{other}]")
            for number, task in enumerate(self.tasks)
            for other, recipe in enumerate(self.recipes)
        ]

    def _count(self) -> int:
        """How many seeds there are, or until it is decided may be."""
        if isinstance(self.seeds, tuple):
            return len(self.seeds)
        return self.seeds if self.seeds is not None else EachSeed.most if self.until == "decided" else 3

    def _looks(self) -> Looks:
        return EachSeed(self._count()) if self.until == "decided" else ONE_LOOK

    def _subjects(self, task: Task) -> tuple[tuple[str, Method], ...]:
        named = [
            (table.label, _at_target(task, shaped_as(task, method, table.target), table.target, self._count()))
            for table in self.methods
            for method in table.methods()
        ]
        own = [method for label, method in named if not label]
        return (*labelled(own), *((label, method) for label, method in named if label))


def _at_target(task: Task, method: Method, target: Table, seeds: int) -> Method:
    asked = target_of(target)
    return sized(task, method, asked, seeds=seeds).method if asked.asked else method


def _options(task: Mapping[str, Any], recipe: Mapping[str, Any], where: str, other: str) -> TaskOptions:
    said = {_plain(key): value for key, value in task.items()}
    own = said.pop("recipe", {})
    if not isinstance(own, Mapping):
        raise TombolaError(f"{where}.recipe is no table; give options of a recipe, as recipe = {{ epochs = 3 }}")
    usual = default_options(["--data", str(said["data"])] if "data" in said else [])
    whole = _as(Recipe, asdict(usual.recipe) | _known(Recipe, own, f"{where}.recipe"), f"{where}.recipe")
    whole = _as(Recipe, asdict(whole) | _known(Recipe, recipe, other), other)
    values = {f.name: getattr(usual, f.name) for f in fields(TaskOptions) if f.name != "recipe"}
    values |= _known(TaskOptions, said, where)
    paths = {name: Path(values[name]) if values[name] else None for name in PATHS}
    checked = _as(TaskOptions, {**values, **dict.fromkeys(PATHS), "recipe": asdict(whole)}, where)
    return replace(checked, **paths)


def _as(kind: type[T], content: Mapping[str, Any], where: str) -> T:
    """A dataclass from a table, with the place in the error."""
    try:
        known = _known(kind, content, where)
        if kind is StudyFile:
            rows = known.get("methods", [])
            known["methods"] = [
                _as(MethodTable, row, f"methods[{number}]") if isinstance(row, Mapping) else row
                for number, row in enumerate(rows if isinstance(rows, list) else [])
            ]
        return msgspec.convert(known, kind)
    except msgspec.ValidationError as error:
        raise TombolaError(f"{where}{': ' if where else ''}{error}") from error


def _known(kind: type, content: Mapping[str, Any], where: str) -> Table:
    """A table by the names of a dataclass's fields; TombolaError for a name that is none."""
    names = [own.name for own in fields(kind)]  # ty: ignore[invalid-argument-type]
    said = {_plain(key): value for key, value in content.items()}
    for key in said:
        if key not in names:
            raise unknown(f"entry{f' of {where}' if where else ''}", key, names)
    return said


def _plain(key: str) -> str:
    return key.replace("-", "_")


def _texts(value: Any) -> Iterator[str]:
    """All texts in a nest of tables and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _but(table: Mapping[str, Any], name: str) -> Table:
    return {key: value for key, value in table.items() if _plain(key) != name}


def _toml(text: str) -> Table:
    """What a text of TOML holds; ValueError where its reader would take hours, or would not come back."""
    if any(line.count(".") > DOTS for line in text.splitlines()):
        raise ValueError(f"a line has more than {DOTS:,} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
