"""What is pinned, made anew by whatever tree: masks and losses of searches, scores, the order of units, records."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import small
import torch
import torch.nn.functional as F
import world
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import tombola as tb

DATA = Path(__file__).parent / "data"
RECORDS = Path(__file__).parents[2] / "docs" / "claims"

# Searches

SHORT: dict[str, dict[str, Any]] = {
    "imp": {"count": 2},
    "imp-warm": {"count": 2},
    "bert-imp": {"count": 2},
    "lrr": {"count": 2},
    "gem-miner-long": {"length": 2.0, "periods": 4},
    "continuous-sparsification": {"rounds": 2},
    "early-bird": {"density": 0.5, "window": 2},
    "worm": {"density": 0.5, "window": 2},
    "early-bird-transformer": {"density": 0.5, "window": 2},
    "worm-transformer": {"density": 0.5, "window": 2},
    "network-slimming": {"density": 0.5},
    "greedy": {"candidates": 2, "samples": 16},
    "vit/greedy": {"density": 0.05},
    "greedy-code": {"candidates": 2, "samples": 16, "convergence": 32, "tolerance": 0.1, "tune": 0.5},
    "vit/greedy-code": {"density": 0.05},
    "resnet/greedy-code": {"density": 0.2, "convergence": 16, "tolerance": 0.5},
    "resnet/greedy": {"density": 0.2},
    "greedy-imitation": {"samples": 16},
    "resnet/greedy-imitation": {"density": 0.2},
    "vit/greedy-imitation": {"density": 0.1},
    "greedy-neurons": {"density": 0.5},
    "layer-cka-iterative": {"granularity": tb.structure.Blocks(2)},
    "iter-snip": {"rounds": 3},
    "force": {"rounds": 3},
    "grasp-it": {"rounds": 3},
    "synflow": {"rounds": 5},
}
"""Settings with which presets search here: what makes long ones short, and densities that small networks bear."""

DENSITY = 0.3
"""Of all other presets that take one."""

CASES = [(network, name) for network in ("mlp", "resnet", "vit") for name in tb.METHODS]
CASES += [("two-layer", name) for name in ("greedy", "greedy-neurons", "greedy-imitation", "imp", "gem-miner")]


def settings_of(network: str, name: str) -> dict[str, Any]:
    """The settings with which a preset searches here."""
    own = world.preset(name)
    counted = isinstance(own.granularity, tb.structure.Blocks | tb.structure.Filters)
    return ({} if counted else {"density": DENSITY}) | SHORT.get(name, {}) | SHORT.get(f"{network}/{name}", {})


def searched(network: str, name: str) -> tuple[dict[str, Any], tb.Mask | None]:
    """What a preset's search comes to: its losses and mask, or the kind of its refusal."""
    heard, settings = small.Heard(), settings_of(network, name)
    found: dict[str, Any] = {"settings": {key: repr(value) for key, value in settings.items()}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ticket = tb.find(small.task(network, heard), tb.method(name, **settings), progress=False)
    except tb.TombolaError as error:
        return found | {"refusal": type(error).__name__}, None
    found |= {
        "losses": heard.values,
        "shapes": shapes_of(ticket.mask),
        "removed": {group: list(units) for group, units in ticket.removed.items()},
        "held": list(ticket.held),
        "recipe": dict(ticket.recipe),
        "start": getattr(ticket.start, "what", getattr(ticket.start, "weights", "")),
        "mask_digest": ticket.mask.digest,
    }
    return found, ticket.mask


def shapes_of(tensors: Mapping[str, Any]) -> dict[str, list[int]]:
    return {name: list(tensors[name].shape) for name in tensors}


def packed(mask: Mapping[str, Tensor]) -> np.ndarray:
    """All bits of a mask, one tensor after another."""
    return np.packbits(np.concatenate([mask[name].numpy().reshape(-1) for name in mask]))


# Scores

SAMPLED = 32

TOLERANCES = dict.fromkeys(("output-divergence", "movement", "weight-gradient all-steps"), 1e-6)
"""Of scores that are computed or gathered in single precision, whatever the network's; of all others 1e-12."""


def block_and_weight_scores() -> dict[str, Any]:
    """Every score by name, and those that searches have beside."""
    own = tb.scores
    more = {"batch-norm-scale": own.BatchNormScale(), "prospr first-order": own.ProsPr(gradient="first-order")}
    more |= {"snip two batches": own.Snip(batches=2), "grasp two batches": own.Grasp(batches=2)}
    more |= {"snip in eval": own.Snip(batch_norm="eval"), "weight-gradient signed": own.WeightGradient(signed=True)}
    of_filters = (
        own.ExpectedActivation(of="filter"),
        own.FeatureRank(of="filter"),
        own.ProjectedImportance(of="filter"),
    )
    more |= {f"{filtered.name} of filters": filtered for filtered in of_filters}
    return world.registered_scores() | more


GATHERED = {
    "movement": tb.scores.Movement(),
    "weight-gradient all-steps": tb.scores.WeightGradient(gather="all-steps"),
    "weight-gradient last-batch": tb.scores.WeightGradient(gather="last-batch"),
}
"""Scores that look on while a network trains."""


def batches() -> list[tuple[Tensor, Tensor]]:
    inputs, targets = small.data()["train"]
    return [(inputs[:16], targets[:16]), (inputs[16:], targets[16:])]


def half(model: nn.Module) -> tb.Mask:
    """A mask of about half of the prunable weights, drawn by NumPy."""
    rng = np.random.default_rng(1)
    return tb.Mask.of(
        {name: torch.from_numpy(rng.random(p.shape) < 0.5) for name, p in tb.structure.prunable(model).items()}
    )


def scored(network: str, name: str, masked: bool) -> dict[str, Tensor] | str:
    """A network's scores, or the kind of the refusal."""
    model = small.task(network).build(0)
    mask = half(model) if masked else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name in GATHERED:
                return world.gathered_score(GATHERED[name], model, gathered(model, GATHERED[name]), mask)
            return world.score(block_and_weight_scores()[name], model, batches(), F.cross_entropy, mask)
    except tb.TombolaError as error:
        return type(error).__name__


def gathered(model: nn.Module, score: Any) -> dict[str, Tensor]:
    """What a score notes of the gradients of two batches."""
    weights = dict(tb.structure.prunable(model))
    noted = {name: torch.zeros_like(weight.detach(), dtype=torch.float32) for name, weight in weights.items()}
    for inputs, targets in batches():
        own = torch.autograd.grad(F.cross_entropy(model(inputs), targets), list(weights.values()))
        for (name, weight), gradient in zip(weights.items(), own, strict=True):
            score.note(noted[name], gradient, weight.detach())
    return noted


def summary(scores: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Some of each tensor's numbers, and two sums over the sizes of all of them, which no change leaves as they are."""
    return {name: _summary(own.detach().double().numpy().reshape(-1)) for name, own in scores.items()}


def _summary(numbers: np.ndarray) -> np.ndarray:
    places = np.linspace(0, len(numbers) - 1, min(SAMPLED, len(numbers))).round().astype(int)
    sizes = np.abs(numbers)
    weighted = sizes * (1 + np.arange(len(numbers)) * 0.6180339887498949 % 1)
    return np.concatenate([numbers[places], [sizes.sum(), weighted.sum()]])


SCORED = [
    (network, name, masked)
    for network in ("mlp", "resnet", "vit")
    for name in (*block_and_weight_scores(), *GATHERED)
    for masked in (False, True)
]

# The order of units

WEIGHTWISE = ("weight", "query-key", "2:4", "1:4")
UNITWISE = (
    *("channel", "channel:mean", "channel:l2", "separate-channel", "head", "neuron", "block", "filter:1", "filter:2"),
)
SCOPES = ("global", "layerwise", "erk", "smart-ratio")
ORDERED = [(network, name) for network in ("mlp", "resnet", "vit") for name in (*WEIGHTWISE, *UNITWISE)]


def fixed_scores(model: nn.Module) -> dict[str, Tensor]:
    """Scores of all parameters in steps of 1/64, so that many are equal and a hash decides."""
    rng = np.random.default_rng(2)
    named = model.named_parameters()
    return {name: torch.from_numpy(rng.integers(1, 65, tuple(own.shape)) / 64) for name, own in named}


def order(network: str, name: str) -> dict[str, Any]:
    """Which units there are, and in what order they go; or the kind of the refusal."""
    model = small.task(network).build(0)
    inputs = small.data()["train"][0][:8]
    try:
        units = world.granularity(name).units(model, lambda own: own(inputs.to(next(own.parameters()))))
    except tb.TombolaError as error:
        return {"refusal": type(error).__name__}
    groups = [[g.name, g.size, [_slice(own) for own in g.slices]] for g in world.unit_groups(units)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {"groups": groups} | (_masks if name in WEIGHTWISE else _units)(model, units, name)
    except tb.TombolaError as error:
        return {"groups": groups, "refusal": type(error).__name__}


def _slice(own: Any) -> list[Any]:
    return [own.parameter, own.dim, own.scored, hashed([list(place) for place in own.positions])]


def _masks(model: nn.Module, units: Any, name: str) -> dict[str, Any]:
    """At several densities the numbers kept of each tensor and the digest of their places."""
    scores = fixed_scores(model)
    scores = {own: scores[own] for own in tb.structure.prunable(model)}
    nested: tb.Mask | None = None
    told = {}
    densities = {"2:4": (0.5,), "1:4": (0.25,)}.get(name, (0.7, 0.5, 0.2, 0.05))
    for scope in ("global", "layerwise") if name not in ("weight", "query-key") else SCOPES:
        for floor in (0, 2):
            nested = None
            for density in densities:
                nested = units.choose(scores, density, scope=scope, within=nested, floor=floor)
                told[f"{scope}, floor {floor}, {density}"] = [list(nested.counts.values()), nested.ties, nested.digest]
    return {"masks": told}


def _units(model: nn.Module, units: Any, name: str) -> dict[str, Any]:
    """The units that go, one after another as the density falls, and now and then the digest of the mask."""
    scores, parameters = fixed_scores(model), dict(model.named_parameters())
    scores = {own: scores[own] for own in tb.structure.prunable(model)}
    total = sum(own.size for own in units.choose(scores, 1.0, scope="global", within=None, floor=0).bits.values())
    gone: set[tuple[str, int]] = set()
    steps: list[Any] = []
    kept: tb.Mask | None = None
    for left in range(total - 1, 0, -1):
        try:
            density = units.share(0.5) if name.startswith("filter") else left / total
            kept = units.choose(scores, density, scope="global", within=None, floor=0)
        except tb.TombolaError as error:
            steps.append(type(error).__name__)
            break
        removed = units.removed(kept)
        now = {(group, unit) for group, own in removed.items() for unit in own}
        steps.append([sorted(map(list, now - gone)), sorted(map(list, gone - now))])
        if left % 8 == 1 or total < 16 or name.startswith("filter"):
            assert units.kept(removed) == kept
            steps[-1].append(units.expand(kept, parameters).digest)
        gone = now
        if name.startswith("filter"):
            break
    return {"units": total, "steps": steps}


# Tickets

TICKETS = (
    ("mlp", "imp"),
    ("mlp", "imp-warm"),
    ("mlp", "lrr"),
    ("mlp", "gem-miner"),
    ("mlp", "greedy"),
    ("resnet", "early-bird"),
    ("resnet", "layer-kl"),
    ("resnet", "filter-snip"),
    ("two-layer", "greedy-neurons"),
)
"""Searches whose tickets are masks, weights of several kinds, removed units, held parameters, signed constants."""


def tickets() -> dict[str, tb.Ticket]:
    """A ticket of each kind, and one with all that a file can hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {
            f"{network}-{name}": tb.find(
                small.task(network), tb.method(name, **settings_of(network, name)), progress=False
            )
            for network, name in TICKETS
        }
    mask = tb.Mask.of({"a.weight": torch.arange(30).reshape(5, 6) % 3 == 0, "b": torch.tensor([True])})
    values = {"a.weight": torch.arange(30.0).reshape(5, 6), "b": torch.tensor([0.5], dtype=torch.bfloat16)}
    values |= {"n": torch.tensor(3), "wide": torch.linspace(0, 1, 3, dtype=torch.float64)}
    recipe = {"start": "10it", "lr": 0.1, "milestones": (0.5, 0.75), "augment": (), "nesterov": True}
    found["by-hand"] = tb.Ticket(mask, tb.tickets.Values(values, "10it", 0.5), ("b",), recipe, {"g": (1, 2), "h": ()})
    return found


def ticket_file(name: str) -> Path:
    return DATA / "tickets" / f"{name}.safetensors"


def content(ticket: tb.Ticket) -> dict[str, Any]:
    """All that a ticket says, as JSON, its tensors as fingerprints; not how long its search took."""
    own, start = ticket.provenance, ticket.start
    return {
        "digest": ticket.digest,
        "mask_digest": ticket.mask.digest,
        "mask": hashed([packed(ticket.mask).tolist(), shapes_of(ticket.mask)]),
        "kept": ticket.mask.counts,
        "start": _values(start) if isinstance(start, tb.tickets.Values) else [start.seed, start.digest, start.weights],
        "held": list(ticket.held),
        "recipe": {key: list(value) if isinstance(value, tuple) else value for key, value in ticket.recipe.items()},
        "removed": {group: list(units) for group, units in ticket.removed.items()},
        "method": own.method,
        "settings": dict(own.settings),
        "seed": own.seed,
        "ties": own.ties,
        "whole": own.whole,
        "before": own.before,
        "flops": own.cost.get("flops"),
    }


def _values(start: tb.tickets.Values) -> list[Any]:
    tensors = {name: [str(own.dtype), own.double().tolist()] for name, own in start.tensors.items()}
    return [start.what, start.epochs_spent, start.digest, hashed(tensors)]


# Stores

DIGITS = ("--data", "digits", "--model", "lenet-300-100", "--width", "0.05")
STUDY = ("compare", "snip", "random", *DIGITS, "--densities", "0.2", "--seeds", "2", "--recipe.epochs", "1")
STUDY = (*STUDY, "--device", "cpu", "--json", "--out", "study")

DOUBLE = ("--data", "small:data", "--model", "small:mlp")
DOUBLE = (*DOUBLE, "--recipe.batch", "8", "--recipe.lr", "0.05", "--recipe.precision", "float32")
COMMON = ("--seed", "0", "--recipe.epochs", "4", "--device", "cpu", "--json")


@dataclass(frozen=True)
class Killed:
    """A command, killed after so many optimizer steps; and how near what it ends with is to what was."""

    words: tuple[str, ...]
    after: int
    steps_an_epoch: int
    near: float = 1e-9


KILLED = {
    "find-imp": Killed(("find", "imp", "--density", "0.4", "--count", "2", *DOUBLE, *COMMON), 26, 4),
    "find-lrr": Killed(("find", "lrr", "--density", "0.4", "--count", "2", *DOUBLE, *COMMON), 26, 4),
    "find-gem-miner": Killed(("find", "gem-miner", "--density", "0.4", *DOUBLE, *COMMON), 10, 4),
    "train-snip": Killed(("train", "snip", "--density", "0.4", *DOUBLE, *COMMON), 10, 4),
    "train-digits": Killed(("train", "random", "--density", "0.2", *DIGITS, *COMMON), 50, 21, near=0.02),
}
"""Searches killed in their second round or in mid-search, and trainings; in double precision but for the last."""


@contextmanager
def steps_counted(kill_after: int = 0) -> Generator[list[int]]:
    """The number of steps that optimizers take inside; after so many of them, if not 0, it is as if stopped."""
    counted = [0]

    def count(*_: Any) -> None:
        counted[0] += 1
        if counted[0] == kill_after:
            raise KeyboardInterrupt

    hook = register_optimizer_step_post_hook(count)
    try:
        yield counted
    finally:
        hook.remove()


def outcome(folder: Path) -> dict[str, Any]:
    """What a run came to: its history, times aside, and the figures of its result if it has one."""
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    told: dict[str, Any] = {"history": [{key: own for key, own in row.items() if key != "seconds"} for row in rows]}
    if (folder / "result.json").exists():
        result = json.loads((folder / "result.json").read_text())
        told["result"] = {key: result[key] for key in ("metric", "loss", "validation", "epochs", "weight_density")}
        told["layers"] = result["layers"]
    return told


def check_same(found: Any, before: Any, near: float) -> None:
    """AssertionError unless two outcomes are the same, numbers but for such a part of them."""
    if isinstance(before, dict):
        assert list(found) == list(before)
        for key in before:
            check_same(found[key], before[key], near)
    elif isinstance(before, list):
        assert len(found) == len(before)
        for own, other in zip(found, before, strict=True):
            check_same(own, other, near)
    elif isinstance(before, float):
        assert abs(found - before) <= near * abs(before), f"{found} is not {before}"
    else:
        assert found == before


def versions() -> list[str]:
    """Of what a run's name depends on beside the run: the code of Python's and torch's own functions enters it."""
    return [".".join(map(str, sys.version_info[:2])), torch.__version__.partition("+")[0]]


# Records


def records(path: Path) -> list[list[Any]]:
    """Of every line of a file of records what names it, the fingerprint of its settings, and what it came to."""
    return [_record(json.loads(line)) for line in path.read_text().splitlines()]


def _record(line: dict[str, Any]) -> list[Any]:
    named = [line.get(key) for key in ("digest", "method", "control", "density", "seed", "metric")]
    measured = [hashed(line["figures"])] if "figures" in line else []
    return [*named, hashed(line["settings"]) if "settings" in line else None, *measured]


def hashed(content: Any) -> str:
    """A fingerprint of what JSON can say."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()
