"""What a claim's protocol would cost: trainings, FLOPs, and hours on two cores and on one GPU; without its data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from tombola import zoo
from tombola.methods import Iterative, Method, label_of
from tombola.methods.density_schedule import rounds_for
from tombola.papers.claims.claim import Claim, ClaimArm, Level, Protocol
from tombola.papers.claims.measurement import Measurement
from tombola.papers.claims.side_by_side import IMAGES
from tombola.registry import METHODS
from tombola.studies import TaskOptions
from tombola.training import SampleFlops, SupervisedTask

CORES, GPU = 160e9, 10e12
"""FLOPs a second: of two cores, as the records of ResNet-20 in bf16 have it; of one GPU on networks of CIFAR's size, as
we suppose."""
SHAPES: dict[str, tuple[tuple[int, ...], int]] = {
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "fashion-mnist": ((1, 28, 28), 10),
    "fashion-mnist-14": ((1, 14, 14), 10),
    "fashion-mnist-32": ((1, 32, 32), 10),
    "digits": ((1, 8, 8), 10),
}
"""An input's shape and the number of classes, of data that need not be here."""


@dataclass(frozen=True)
class Quote:
    """What a protocol would cost.

    Args:
        claim: its name.
        level: which protocol.
        trainings: whole trainings, those of searches included; None where the protocol trains no arms.
        flops: of all of them; None where they cannot be counted without the data.
        words: what the claim's file says of it.
    """

    claim: str
    level: Level
    trainings: float | None
    flops: float | None
    words: str

    @property
    def hours(self) -> tuple[float | None, float | None]:
        """On two cores, and on one GPU."""
        return (None, None) if self.flops is None else (self.flops / CORES / 3600, self.flops / GPU / 3600)


def quote(claim: Claim, level: Level) -> Quote:
    """The price of a protocol; nothing is trained and no data is read."""
    protocol = claim.protocols[level]
    if not isinstance(protocol, Protocol):
        return _of_figures(claim.id, level, protocol)
    epochs = sum(
        _epochs(protocol.task.recipe.epochs, arm) * len(arm.variants) for arm in _kinds(protocol.arms.values())
    )
    searched = {id_of(arm): _searches(arm.method) for arm in protocol.arms.values() if arm.method is not None}
    trainings = protocol.seeds * (epochs / protocol.task.recipe.epochs + sum(searched.values()))
    sample = _sample_flops(protocol.task)
    images = IMAGES.get(protocol.task.data)
    known = None if sample is None or images is None else trainings * protocol.task.recipe.epochs * images * sample
    return Quote(claim.id, level, trainings, known, protocol.minutes)


def _of_figures(name: str, level: Level, protocol: Measurement) -> Quote:
    """The price of figures: by the epochs that their function says it trains, if it does."""
    take, epochs = protocol.take, getattr(protocol.take, "epochs_of_training", None)
    data, model = (getattr(take, own, "") for own in ("data", "model"))
    if epochs is None or data not in SHAPES or data not in IMAGES:
        return Quote(name, level, None, None, protocol.minutes)
    sample, whole = _sample_flops(TaskOptions(data, model, getattr(take, "width", 1.0))), getattr(take, "epochs", None)
    trainings = protocol.seeds * epochs / whole if isinstance(whole, int) else None
    flops = None if sample is None else protocol.seeds * epochs * IMAGES[data] * sample
    return Quote(name, level, trainings, flops, protocol.minutes)


def price_list(claims: Iterable[Claim], level: Level = "full") -> list[Quote]:
    """The prices of claims' protocols, in their order."""
    return [quote(claim, level) for claim in claims]


def id_of(arm: ClaimArm) -> tuple[str, str]:
    """What an arm's search is: arms of one have it in common."""
    return repr(arm.method), repr(sorted(arm.recipe.items()))


def _kinds(arms: Iterable[ClaimArm]) -> list[ClaimArm]:
    """Arms that are not the same runs measured in another way."""
    return list({(*id_of(arm), arm.control, repr(arm.variants), arm.extra_epochs): arm for arm in arms}.values())


def _epochs(usual: int, arm: ClaimArm) -> float:
    return arm.recipe.get("epochs", usual) + arm.extra_epochs


def _searches(method: Method) -> float:
    """How many whole trainings a search takes, beside what counts as the ticket's own."""
    if isinstance(method, Iterative):
        return method.count or rounds_for(method.density, method.share)
    entry = METHODS.entries.get(label_of(method).partition("(")[0])
    words = "" if entry is None else entry.cost
    if "the ticket's own" in words or "counts as training" in words:
        return 0.0
    return float(getattr(method, "length", 1.0)) if words.startswith(("one full", "one training", "one fine")) else 0.0


def _sample_flops(options: TaskOptions) -> float | None:
    """FLOPs of training on one sample, attacks included; None for data whose samples have no shape of their own."""
    if options.data not in SHAPES:
        return None
    shape, classes = SHAPES[options.data]
    inputs, targets = torch.zeros(2, *shape), torch.arange(2) % classes
    build = zoo.model(options.model, shape, classes, options.width, options.start)
    task = SupervisedTask(
        build, {"train": (inputs, targets), "test": (inputs, targets)}, recipe=replace(options.recipe)
    )
    with torch.device("meta"):
        model = build()
    attacked = {"": 0, "pgd": options.attack_steps}.get(options.attack, 1)
    return (1 + attacked) * SampleFlops.measure(task, model, (inputs, targets)).training
