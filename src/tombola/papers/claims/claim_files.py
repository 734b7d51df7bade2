"""The claims as their files in `entries/` have them, one a file; `entries/README.md` says how they are written."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import Any, get_args

from tombola.papers.claims.bounds import Bounds
from tombola.papers.claims.claim import LEVELS, Claim, ClaimArm, Protocol
from tombola.papers.claims.claim_outcome import Expectation, Relation
from tombola.papers.claims.growing_data import Growing
from tombola.papers.claims.hit_rates import Spiral
from tombola.papers.claims.measurement import Measurement
from tombola.papers.claims.measures import measure_of
from tombola.registry.registry import build
from tombola.robust import Robustness
from tombola.studies import RECIPES, TaskOptions
from tombola.training import Recipe

ORDER = (
    "lottery-ticket",
    "missing-the-mark",
    "rewinding",
    "sanity-checks",
    "rare-gems-ladder",
    "rare-gems",
    "rare-gems-conv4",
    "rare-gems-sanity",
    "rare-gems-shape",
    "concrete-continuous",
    "early-bird",
    "early-bird-vgg11",
    "worm",
    "worm-vgg11",
    "worm-vit",
    "worm-minilm",
    "worm-window",
    "worm-sweep",
    "layer-tickets",
    "layer-criterion",
    "layer-filters",
    "layer-robustness",
    "layer-savings",
    "weight-gradient-vgg11",
    "weight-gradient-resnet20",
    "weight-gradient-iterative",
    "layer-collapse",
    "sparsest-spiral",
    "greedy-bounds",
    "enough-pretraining",
    "greedy-pretraining",
    "greedy-pretraining-vgg11",
)
"""In which claims are listed."""

TAKEN = {own.__name__: own for own in (Bounds, Growing, Spiral)}
"""What gives figures where no arms are trained, by name."""

FRACTION = re.compile(r"(\d+)/(\d+)")


def claims() -> dict[str, Claim]:
    """All of them, in reading order."""
    return {name: claim_of(name, _read(name)) for name in ORDER}


def _read(name: str) -> dict[str, Any]:
    """What a file says, over what the claim says that it is like."""
    text = files("tombola.papers.claims").joinpath("entries", f"{name}.toml").read_text(encoding="utf-8")
    own = tomllib.loads(text)
    return _over(_read(own.pop("like")), own) if "like" in own else own


def _over(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A table with what another one says otherwise; a task that names its data owes nothing to another."""
    both = dict(base)
    for key, value in own.items():
        within = isinstance(value, dict) and isinstance(both.get(key), dict) and "data" not in value
        both[key] = _over(both[key], value) if within else value
    return both


def claim_of(name: str, said: Mapping[str, Any]) -> Claim:
    """A claim of what its file says."""
    levels = {level: _over(said["standard"], said.get(level, {})) for level in LEVELS}
    protocols = {level: _protocol(**_plain(own)) for level, own in levels.items()}
    expected = tuple(map(_expectation, said["expected"]))
    texts = {key: " ".join(text.split()) for key, text in said.items() if key not in (*LEVELS, "expected")}
    return Claim(name, **texts, protocols=protocols, expected=expected)


def _plain(value: Any) -> Any:
    """Numbers for what is written as a fraction, "1/255"."""
    if isinstance(value, Mapping):
        return {key: _plain(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_plain(own) for own in value]
    parts = FRACTION.fullmatch(value) if isinstance(value, str) else None
    return int(parts[1]) / int(parts[2]) if parts else value


def _protocol(take: str = "", settings: Mapping[str, Any] = {}, **said: Any) -> Protocol | Measurement:
    """One that trains arms; where it says what it takes, one that gives figures."""
    if not take:
        return _trained(**said)
    own = TAKEN[take](**{name: build(value) for name, value in settings.items()})
    return Measurement(own, own.units, ran=own.ran(said["seeds"]), **said)


def _trained(
    task: Mapping[str, Any],
    arms: Mapping[str, Mapping[str, Any]],
    only: Sequence[str] = ("*",),
    measured: Sequence[str] = (),
    density: float | None = None,
    methods: Mapping[str, Mapping[str, Any]] = {},
    robustness: Mapping[str, Any] | None = None,
    **said: Any,
) -> Protocol:
    """Arms of the names that `only` allows, on a task.

    measured: of arms with {measured} in their names; density: of all methods; methods: what else they are set to.
    """
    each = {name: arm for own in arms.items() for name, arm in _each(*own, measured)}
    chosen = {name: arm for name, arm in each.items() if any(fnmatchcase(name, own) for own in only)}
    amount = {} if density is None else {"density": density}
    return Protocol(
        _task(**task),
        {name: _arm(amount, methods, **arm) for name, arm in chosen.items()},
        robustness=None if robustness is None else Robustness(**robustness),
        **said,
    )


def _each(name: str, arm: Mapping[str, Any], measured: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """An arm; where {measured} is in its name, one for each that is measured."""
    if "{measured}" not in name:
        yield name, arm
        return
    for own in measured:
        yield name.replace("{measured}", own), {**arm, "measured": own}


def _arm(
    amount: Mapping[str, float],
    methods: Mapping[str, Mapping[str, Any]],
    method: str = "",
    measured: str | Mapping[str, Any] = "accuracy",
    control: str = "",
    lrs: Sequence[float | str] = ("recipe",),
    extra_epochs: float = 0.0,
    **settings: Any,
) -> ClaimArm:
    """settings: the method's, over what all methods are set to; the learning rate "recipe" is that of the recipe."""
    if settings and not method:
        raise TypeError(f"an arm without a method has no {', '.join(settings)}")
    own = build({"method": method, **amount, **methods.get(method, {}), **settings}) if method else None
    measure, unit = measure_of(measured)
    rates = tuple(None if rate == "recipe" else float(rate) for rate in lrs)
    return ClaimArm(own, control, measure, unit, rates, extra_epochs)


def _task(data: str, recipe: Mapping[str, Any] = {}, **said: Any) -> TaskOptions:
    """The recipe is the data's usual one, but for what is said of it."""
    return TaskOptions(data, recipe=replace(RECIPES.get(data, Recipe()), **recipe), **said)


def _expectation(text: str) -> Expectation:
    """Of "A > B" or "A ≥ B", or "A ≥ B within 0.01" where the margin is not that of the unit."""
    said, _, margin = text.partition(" within ")
    relation: Relation = next(own for own in get_args(Relation) if f" {own} " in said)
    left, _, right = said.partition(f" {relation} ")
    return Expectation(left, relation, right, float(margin) if margin else None)
