"""Read the claims from their files in `entries/`; `entries/README.md` says how these are written."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import Any, get_args

from tombola.papers.claims.batch_sizes import BatchSizes
from tombola.papers.claims.bounds import Bounds
from tombola.papers.claims.carried_tickets import CarriedTickets
from tombola.papers.claims.claim import LEVELS, Claim, ClaimArm, Damage, PaperProtocol, Protocol
from tombola.papers.claims.claim_outcome import Expectation, Relation
from tombola.papers.claims.filter_training import CountedBytes, FilterRankings
from tombola.papers.claims.growing_data import Growing
from tombola.papers.claims.hit_rates import Spiral, SpiralChances
from tombola.papers.claims.measurement import Measurement
from tombola.papers.claims.measures import measure_of
from tombola.papers.claims.moved_tickets import MovedTickets
from tombola.papers.claims.repelled_rounds import RepelledRounds
from tombola.papers.claims.side_by_side import FACTS
from tombola.papers.claims.truncated_searches import TruncatedSearches
from tombola.registry.registry import build
from tombola.robust import Robustness
from tombola.structure import Prunable
from tombola.studies import TaskOptions, recipe_for

ORDER = (
    "missing-the-mark",
    "lottery-ticket",
    "concrete-ticket-search",
    "early-bird-vgg11",
    "layer-tickets",
    "sanity-checks",
    "rare-gems",
    "rare-gems-sanity",
    "rare-gems-shape",
    "rare-gems-ladder",
    "rare-gems-conv4",
    "continuous-sparsification",
    "layer-collapse",
    "weight-gradient-vgg11",
    "weight-gradient-resnet20",
    "dual-tickets",
    "ham-random-tickets",
    "early-bird",
    "worm-vgg11",
    "worm-sweep",
    "worm-window",
    "worm-vit",
    "worm",
    "earlybert",
    "worm-minilm",
    "loft-distance",
    "loft-tickets",
    "loft-communication",
    "rewinding",
    "weight-gradient-iterative",
    "stable-tickets",
    "stable-tickets-resnet8",
    "regurgitating-tickets",
    "matched-transfer",
    "boosting-tickets",
    "boosting-capacity",
    "layer-savings",
    "layer-filters",
    "layer-robustness",
    "layer-criterion",
    "greedy-pretraining-vgg11",
    "greedy-pretraining",
    "enough-pretraining",
    "greedy-bounds",
    "bert-imp",
    "bert-good-and-bad",
    "bert-transfer",
    "sparsest-spiral",
)
"""The order in which claims are listed: what most users ask first; then pruning before training, early, after it, of
whole units, of transformers; the sparsest network there is."""

TAKEN = {
    function.__name__: function
    for function in (
        BatchSizes,
        Bounds,
        CarriedTickets,
        CountedBytes,
        FilterRankings,
        Growing,
        MovedTickets,
        RepelledRounds,
        Spiral,
        SpiralChances,
        TruncatedSearches,
    )
}
"""The functions that give a claim's figures where no arms are trained, by name."""

FRACTION = re.compile(r"(\d+)/(\d+)")


def claims() -> dict[str, Claim]:
    """Read all claims, in the order in which they are listed."""
    return {name: claim_of(name, _read(name)) for name in ORDER}


def _read(name: str) -> dict[str, Any]:
    """The content of a claim's file, merged over that of the claim it names in `like`."""
    text = files("tombola.papers.claims").joinpath("entries", f"{name}.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)
    return _merged(_read(content.pop("like")), content) if "like" in content else content


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A table with changes merged into it; a task that names its data replaces the other task as a whole."""
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict) and "data" not in value
        merged[key] = _merged(merged[key], value) if nested else value
    return merged


def claim_of(name: str, content: Mapping[str, Any]) -> Claim:
    """Build a claim from the content of its file.

    Args:
        name: the claim's id.
        content: the file as TOML gives it.

    Raises:
        TombolaError: for a name that the registry or the measures do not have.
        TypeError: for a key that nothing takes.
    """
    levels = {level: _merged(content["standard"], content.get(level, {})) for level in LEVELS}
    protocols = {level: _protocol(**_numbers(table)) for level, table in levels.items()}
    expected = tuple(map(_expectation, content["expected"]))
    paper = _paper(**content.get("paper", {}))
    short = {word: " ".join(text.split()) for word, text in content.get("short", {}).items()}
    built = (*LEVELS, "expected", "paper", "short")
    texts = {key: " ".join(text.split()) for key, text in content.items() if key not in built}
    return Claim(name, **texts, protocols=protocols, expected=expected, paper=paper, short=short)


def _paper(table: str = "", says: str = "", damage: Mapping[str, Any] | None = None, **facts: Any) -> PaperProtocol:
    """How the paper did it; TypeError for a fact that no page shows."""
    if strange := facts.keys() - {*FACTS, "seeds"}:
        raise TypeError(f"a paper's protocol has no {', '.join(sorted(strange))}")
    of = None if damage is None else Damage(tuple(damage["of"]), damage["paper"])
    return PaperProtocol(table, facts, of, says)


def _numbers(value: Any) -> Any:
    """The value with every text that is a fraction, such as "1/255", as a number."""
    if isinstance(value, Mapping):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    parts = FRACTION.fullmatch(value) if isinstance(value, str) else None
    return int(parts[1]) / int(parts[2]) if parts else value


def _protocol(take: str = "", settings: Mapping[str, Any] = {}, **keys: Any) -> Protocol | Measurement:
    """A protocol that trains arms; if the file names a function in `take`, one of that function's figures."""
    if not take:
        return _training_protocol(**keys)
    function = TAKEN[take](**{name: build(value) for name, value in settings.items()})
    return Measurement(function, function.units, ran=function.ran(keys["seeds"]), **keys)


def _training_protocol(
    task: Mapping[str, Any],
    arms: Mapping[str, Mapping[str, Any]],
    only: Sequence[str] = ("*",),
    measured: Sequence[str] = (),
    density: float | None = None,
    methods: Mapping[str, Mapping[str, Any]] = {},
    robustness: Mapping[str, Any] | None = None,
    **keys: Any,
) -> Protocol:
    """A protocol of the arms whose names match a pattern in `only`; the parameters are the keys of its table."""
    expanded = {name: arm for item in arms.items() for name, arm in _expanded(*item, measured)}
    chosen = {name: arm for name, arm in expanded.items() if any(fnmatchcase(name, pattern) for pattern in only)}
    common = {} if density is None else {"density": density}
    return Protocol(
        _task(**task),
        {name: _arm(common, methods, **arm) for name, arm in chosen.items()},
        robustness=None if robustness is None else Robustness(**robustness),
        **keys,
    )


def _expanded(name: str, arm: Mapping[str, Any], measured: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The arm itself; if its name has {measured} in it, one arm for each measure."""
    if "{measured}" not in name:
        yield name, arm
        return
    for measure in measured:
        yield name.replace("{measured}", measure), {**arm, "measured": measure}


def _arm(
    common: Mapping[str, float],
    methods: Mapping[str, Mapping[str, Any]],
    method: str = "",
    measured: str | Mapping[str, Any] = "accuracy",
    control: str = "",
    lrs: Sequence[float | str] = ("recipe",),
    extra_epochs: float = 0.0,
    recipe: Mapping[str, Any] = {},
    best_of: Sequence[Mapping[str, Any]] = ({},),
    **settings: Any,
) -> ClaimArm:
    """An arm from its table: an arm's own settings come before those of its method, these before the common ones."""
    if settings and not method:
        raise TypeError(f"an arm without a method has no {', '.join(settings)}")
    own: dict[str, Any] = {**common, **methods.get(method, {}), **settings}
    if "prunable" in own:
        own["prunable"] = Prunable(exclude=tuple(own["prunable"]["exclude"]))
    built = build({"method": method, **own}) if method else None
    measure, unit = measure_of(measured)
    rates = tuple(None if rate == "recipe" else float(rate) for rate in lrs)
    return ClaimArm(built, control, measure, unit, rates, extra_epochs, recipe, tuple(best_of))


def _task(data: str, recipe: Mapping[str, Any] = {}, **keys: Any) -> TaskOptions:
    """A task with the usual recipe of its data, changed where the file says so."""
    return TaskOptions(data, recipe=replace(recipe_for(data), **recipe), **keys)


def _expectation(entry: str | Mapping[str, Any]) -> Expectation:
    """Parse "A > B", "A ≥ B" or, with a margin that is not the unit's, "A ≥ B within 0.01"; or a table with more."""
    said = {"that": entry} if isinstance(entry, str) else dict(entry)
    comparison, _, margin = said.pop("that").partition(" within ")
    relation: Relation = next(sign for sign in get_args(Relation) if f" {sign} " in comparison)
    left, _, right = comparison.partition(f" {relation} ")
    return Expectation(left, relation, right, float(margin) if margin else None, **said)
