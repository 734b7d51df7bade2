"""What the paper did beside what is done here, and whether that can decide: made from the two protocols."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from statistics import fmean, median

from tombola.methods import blocks_removed
from tombola.papers.claims.claim import Claim, Level, Protocol
from tombola.papers.claims.claim_outcome import ClaimReport
from tombola.papers.claims.measurement import Measurement
from tombola.studies import Result
from tombola.training import Recipe

IMAGES = {
    "fashion-mnist-14": 20_000,
    "fashion-mnist-32": 20_000,
    "fashion-mnist": 54_000,
    "digits": 1_294,
    "cifar10": 45_000,
    "cifar100": 45_000,
}
"""Training images of each data set, without those that validate."""
STARTS = {"fan-in": "kaiming-normal in all layers", "fan-out": "kaiming-normal by fan-out, a narrow classifier"}
NOT_SAID, NONE = "not said", "none"
ALWAYS = ("data", "network", "start", "epochs", "density", "tuning", "search")
"""What is told of our protocol even where the paper does not say it."""


@dataclass(frozen=True)
class Beside:
    """A row of the table "paper | here | can it decide?".

    Args:
        what: which part of the protocol.
        paper: what the paper did.
        here: what is done here.
        decides: whether what is done here can decide the paper's statement.
    """

    what: str
    paper: str
    here: str
    decides: str


def side_by_side(claim: Claim, level: Level = "standard", report: ClaimReport | None = None) -> list[Beside]:
    """The rows of a claim's table.

    Args:
        claim: the claim.
        level: which of its protocols stands beside the paper's.
        report: what came out, if it ran: seeds, the dense network and costs are then those of the runs.
    """
    protocol = claim.protocols[level]
    here = _of_runs(protocol, report) if isinstance(protocol, Protocol) else _of_settings(protocol)
    facts = claim.paper.facts
    asked = [key for key in FACTS if key in facts or (key in ALWAYS and here.get(key, NONE) != NONE)]
    rows = [
        Beside(
            FACTS[key][0], _shown(facts.get(key)), _shown(here.get(key)), FACTS[key][1](facts.get(key), here.get(key))
        )
        for key in asked
    ]
    if claim.paper.damage is not None:
        cost = None if report is None else _damage(claim.paper.damage.of, report)
        paper = claim.paper.damage.paper
        rows.append(
            Beside(
                f"what the density costs ({' − '.join(claim.paper.damage.of)})",
                f"{paper:g} points",
                "not yet run" if cost is None else f"{cost:.1f} points".replace("-", "−"),
                "" if cost is None else _as_hard(paper, cost),
            )
        )
    return [*rows, _of_seeds(claim, protocol, report)]


def _same(paper: str | float | None, here: str | float | None) -> str:
    if paper is None or here is None:
        return ""
    return "the same" if str(paper).casefold() == str(here).casefold() else "differs"


def _share(paper: str | float | None, here: str | float | None) -> str:
    if not isinstance(paper, int | float) or not isinstance(here, int | float) or not paper:
        return _same(paper, here)
    share = here / paper
    if 0.8 <= share <= 1.25:
        return "as many"
    return f"{share:.2g} times as many" if share > 1 else f"{100 * share:.2g} % of them"


def _level(paper: str | float | None, here: str | float | None) -> str:
    return ""


FACTS: Mapping[str, tuple[str, Callable[[str | float | None, str | float | None], str]]] = {
    "data": ("data", _same),
    "network": ("network", _same),
    "start": ("start", _same),
    "epochs": ("epochs", _share),
    "steps": ("steps", _share),
    "schedule": ("schedule", _same),
    "rate": ("learning rate", _same),
    "batch": ("batch", _same),
    "density": ("density", _same),
    "pruned": ("what is pruned", _same),
    "dense": ("dense accuracy, %", _level),
    "tuning": ("tuning", _same),
    "search": ("search, in dense trainings", _share),
}
"""What can be said of a protocol: by name what the table calls it, and how paper and here are compared."""


def _of_runs(protocol: Protocol, report: ClaimReport | None) -> dict[str, str | float]:
    task, recipe = protocol.task, protocol.task.recipe
    methods = [arm.method for arm in protocol.arms.values() if arm.method is not None]
    densities = sorted({m.density for m in methods if blocks_removed(m) is None}, reverse=True)
    blocks = sorted({removed for m in methods if (removed := blocks_removed(m)) is not None})
    drawn = task.model.startswith(("vgg", "resnet", "preresnet", "wrn"))
    here: dict[str, str | float] = {
        "data": task.data + (f", {task.hold_out} classes held out" if task.hold_out else ""),
        "network": task.model + (f", {task.width:g} times the channels" if task.width != 1 else ""),
        "start": STARTS[task.initialisation] if drawn else "pretrained" if task.model == "minilm" else "torch's own",
        "epochs": recipe.epochs,
        "schedule": schedule_of(recipe),
        "rate": recipe.lr,
        "batch": recipe.batch,
        "density": ", ".join(f"{100 * own:.3g} %" for own in densities)
        or ("without " + ", ".join(map(str, blocks)) + " blocks" if blocks else "dense"),
        "pruned": _pruned(methods),
        "tuning": _tuning(protocol),
    }
    if task.data in IMAGES:
        here["steps"] = recipe.epochs * math.ceil(IMAGES[task.data] / recipe.batch)
    if report is not None:
        here |= _measured(report)
    return here


def _pruned(methods: list) -> str:
    """What the methods may prune, if that is not everything."""
    left_out = sorted({name for own in methods for name in getattr(getattr(own, "prunable", None), "exclude", ())})
    return f"all but {', '.join(left_out)}" if left_out else "all convolutions and linear layers"


def _tuning(protocol: Protocol) -> str:
    tried = max(len(arm.variants) for arm in protocol.arms.values())
    return f"each arm's best of up to {tried}, on validation images" if tried > 1 else NONE


def _measured(report: ClaimReport) -> dict[str, str | float]:
    """What the runs have shown of the protocol."""
    results = [own for arm in report.arms.values() for own in arm if isinstance(own, Result)]
    dense = [own.validation for own in results if not own.method]
    searches = [own.search["dense_epochs"] / own.epochs for own in results if own.search.get("dense_epochs")]
    found: dict[str, str | float] = {}
    if "dense" in report.arms and dense:
        found["dense"] = round(100 * fmean(own.metric for own in report.arms["dense"]), 1)
    if searches:
        found["search"] = round(median(searches), 2)
    return found


def _of_settings(protocol: Measurement) -> dict[str, str | float]:
    """What a function that gives figures is set to, as far as a paper's protocol has the same."""
    named = {
        "data": "data",
        "model": "network",
        "epochs": "epochs",
        "lr": "rate",
        "batch": "batch",
        "batches": "batch",
        "density": "density",
    }
    said = {own.name: getattr(protocol.take, own.name) for own in fields(protocol.take)}
    here = {fact: said[name] for name, fact in named.items() if name in said} | getattr(protocol.take, "facts", {})
    if isinstance(here.get("density"), float):
        here["density"] = f"{100 * here['density']:.3g} %"
    if said.get("width", 1.0) != 1 and "network" in here:
        here["network"] = f"{here['network']}, {said['width']:g} times the channels"
    return {key: value if isinstance(value, int | float) else _listed(value) for key, value in here.items()}


def schedule_of(recipe: Recipe) -> str:
    """A recipe's schedule in a few words.

    Examples:
        >>> schedule_of(Recipe(schedule="multistep", milestones=(0.5, 0.75)))
        '÷10 at 50 and 75 %'
    """
    if recipe.schedule != "multistep":
        return f"{recipe.schedule}{f', {recipe.warmup:g} epochs of warm-up' if recipe.warmup else ''}"
    points = " and ".join(f"{100 * own:.3g}" for own in recipe.milestones)
    return f"÷{1 / recipe.gamma:g} at {points} %"


def _damage(of: tuple[str, str], report: ClaimReport) -> float:
    """How much worse the second arm is, in points."""
    one, two = (fmean(own.metric for own in report.arms[name]) for name in of)
    return 100 * (one - two)


def _as_hard(paper: float, here: float) -> str:
    return "yes" if here >= paper / 2 else f"hardly: {100 * max(here, 0) / paper:.0f} % of it here"


def _of_seeds(claim: Claim, protocol: Protocol | Measurement, report: ClaimReport | None) -> Beside:
    paper = _shown(claim.paper.facts.get("seeds", NOT_SAID) if claim.kind == "a paper's" else None)
    most = getattr(protocol, "sequential", False)
    if report is None:
        return Beside("seeds", paper, f"{'at most ' if most else ''}{protocol.seeds}", "not yet run")
    here = f"{report.seeds}{f' of at most {protocol.seeds}' if most and report.seeds < protocol.seeds else ''}"
    weak = [row for row in report.counted if row.finding in ("undecided", "tie")]
    if not weak:
        return Beside("seeds", paper, here, "yes: all is decided")
    worst = max(weak, key=lambda row: row.detectable / row.needed if row.needed else math.inf)
    if not math.isfinite(worst.detectable):
        return Beside("seeds", paper, here, "no: one shows nothing")
    unit = worst.unit
    says = f"of {unit.size(worst.needed)} they could show {unit.size(worst.detectable)} and more"
    if worst.can_show:
        says = f"they could show {unit.size(worst.needed)}, and the truth lies near what divides the two answers"
    return Beside("seeds", paper, here, f"{'no' if len(weak) == len(report.counted) else 'in part'}: {says}")


def _shown(value: str | float | None) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:,.6g}"


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
