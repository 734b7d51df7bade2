"""Robustness: what a trained network gives on attacked, corrupted and foreign images, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.evidence.statistics import MARGIN, Comparison, holm, paired_comparison
from tombola.fields import check_fields
from tombola.robust.attacks import fgsm, pgd
from tombola.robust.corruptions import SUITES, Suite, corrupt
from tombola.robust.detection import auroc, calibration_error, energy, fpr95, msp
from tombola.structure import in_mode
from tombola.training import Task

BATCH = 500
RANGE_BATCHES = 20
SEVERITIES = range(1, 6)
LOWER = ("FPR95", "calibration error")
"""What is better the lower it is."""


@dataclass(frozen=True)
class Robustness:
    """How trained networks are tried beyond the test split.

    epsilons: how far attacks may move a pixel, as shares of the way from black to white. steps: of PGD, each of 2.5·ε
    over their number, from a random start. samples: of the test split, its first. corruptions: `core` (six, at five
    severities), `all` (nineteen, with the extra `robust`) or `none`. black_white: what black and white are in the data;
    if None, each channel's least and largest value in training images. far: foreign images, as handwritten digits
    scaled to size, and noise; held-out classes, where the data has them, are near.
    """

    epsilons: tuple[float, ...] = (1 / 255, 2 / 255, 4 / 255, 8 / 255)
    steps: int = 10
    samples: int = 2000
    corruptions: Suite | Literal["none"] = "core"
    black_white: tuple[float, float] | None = None
    far: tuple[Literal["digits", "noise"], ...] = ("digits", "noise")
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.samples < 1 or self.steps < 1 or not all(0 < epsilon <= 1 for epsilon in self.epsilons):
            raise TombolaError(
                f"robustness with samples={self.samples}, steps={self.steps}, epsilons={self.epsilons}; give at least "
                "1 of the first two, and shares of the way from black to white, as 0.03"
            )

    def measure(self, task: Task, network: nn.Module) -> dict[str, float]:
        """What a network comes to, by name; accuracies, AUROC, FPR95 and calibration error as shares of 1.

        TombolaError for inputs that are not images, or for images beyond black and white.
        """
        device = next(network.parameters()).device
        images, targets = _first(task, "test", self.samples)
        low, high = self._bounds(task, images)
        with in_mode(network, "eval"):
            return self._tried(_Trial(task, network, images.clamp(low, high), targets, low, high, device))

    def _tried(self, trial: _Trial) -> dict[str, float]:
        logits = trial.logits(trial.images)
        found = {"clean": trial.accuracy(logits), "calibration error": calibration_error(logits, trial.targets)}
        for epsilon in self.epsilons:
            found[f"FGSM {words(epsilon)}"] = trial.attacked(epsilon, 0, self.seed)
            found[f"PGD {words(epsilon)}"] = trial.attacked(epsilon, self.steps, self.seed)
        found |= self._corrupted(trial)
        for name, foreign in self._foreign(trial.task, trial).items():
            outside = trial.logits(foreign)
            for score, of in (("MSP", msp), ("energy", energy)):
                inside, beyond = of(logits), of(outside)
                found[f"{name}, {score} AUROC"] = auroc(inside, beyond)
                found[f"{name}, {score} FPR95"] = fpr95(inside, beyond)
        return found

    def _corrupted(self, trial: _Trial) -> dict[str, float]:
        """The mean accuracy over all corruptions, over each kind's severities, and over each severity's kinds."""
        if self.corruptions == "none":
            return {}
        kinds, suite = SUITES[self.corruptions], self.corruptions
        found = {(kind, own): trial.corrupted(kind, own, self.seed, suite) for kind in kinds for own in SEVERITIES}
        named = {"corruptions": list(found.values())}
        named |= {kind: [found[kind, own] for own in SEVERITIES] for kind in kinds}
        named |= {f"severity {own}": [found[kind, own] for kind in kinds] for own in SEVERITIES}
        return {name: math.fsum(values) / len(values) for name, values in named.items()}

    def _bounds(self, task: Task, images: Tensor) -> tuple[Tensor, Tensor]:
        if self.black_white is not None:
            low, high = (torch.full((images.shape[1], 1, 1), value) for value in self.black_white)
        else:
            seen = [inputs.detach().cpu().float() for inputs, _ in islice(task.batches("train", 0, 0), RANGE_BATCHES)]
            low = torch.stack([own.amin((0, 2, 3)) for own in seen]).amin(0)[:, None, None]
            high = torch.stack([own.amax((0, 2, 3)) for own in seen]).amax(0)[:, None, None]
        beyond = 0.02 * (high - low)
        if not ((images >= low - beyond) & (images <= high + beyond)).all() or not (high > low).all():
            raise TombolaError(
                f"the test images reach from {images.min():.3g} to {images.max():.3g}, beyond black and white at "
                f"{low.min():.3g} and {high.max():.3g}; give what these are in your data, as --black-white 0 1"
            )
        return low, high

    def _foreign(self, task: Task, trial: _Trial) -> dict[str, Tensor]:
        own: dict[str, Tensor] = {}
        if "held-out" in getattr(task, "data", {}):
            own["held-out"] = _first(task, "held-out", self.samples)[0]
        if "digits" in self.far and getattr(task, "labels", {}).get("data") != "digits":
            own["digits"] = trial.scaled(_digits(len(trial.images), trial.images.shape))
        if "noise" in self.far:
            generator = torch.Generator().manual_seed(self.seed)
            own["noise"] = trial.scaled(torch.rand(trial.images.shape, generator=generator))
        return own


@dataclass(frozen=True, eq=False)
class _Trial:
    """A network in evaluation mode, test images on the processor, and where black and white lie in each channel."""

    task: Task
    network: nn.Module
    images: Tensor
    targets: Tensor
    low: Tensor
    high: Tensor
    device: torch.device

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        return torch.cat([self._call(part.to(self.device)).float().cpu() for part in images.split(BATCH)])

    def accuracy(self, logits: Tensor) -> float:
        return float(self.task.metric(logits, self.targets))

    def attacked(self, epsilon: float, steps: int, seed: int) -> float:
        """Accuracy under PGD of so many steps; under FGSM if 0."""
        reach, bounds = epsilon * (self.high - self.low), (self.low, self.high)
        moved = []
        for part, targets in zip(self.images.split(BATCH), self.targets.split(BATCH), strict=True):
            own = (part.to(self.device), targets.to(self.device), self.task.loss, reach, bounds)
            moved.append(pgd(self._call, *own, steps=steps, seed=seed) if steps else fgsm(self._call, *own))
        return self.accuracy(self.logits(torch.cat(moved)))

    def corrupted(self, kind: str, severity: int, seed: int, suite: Suite) -> float:
        pixels = ((self.images - self.low) / (self.high - self.low)).clamp(0, 1)
        return self.accuracy(self.logits(self.scaled(corrupt(pixels, kind, severity, seed, suite))))

    def scaled(self, pixels: Tensor) -> Tensor:
        """Images from 0 to 1 as the data has them."""
        return self.low + pixels * (self.high - self.low)

    def _call(self, images: Tensor) -> Any:
        return self.task.forward(self.network, images)


def compare_robustness(
    ticket: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]], against: str, margin: float = MARGIN
) -> dict[str, Comparison]:
    """Each measure of two arms, seed by seed, with Holm's correction for their number; *better* is more robust."""
    names = [name for name in ticket[0] if all(name in own for own in (*ticket, *other))]
    found = []
    for name in names:
        sign = -1 if name.endswith(LOWER) else 1
        pairs = ([sign * own[name] for own in arm] for arm in (ticket, other))
        found.append(paired_comparison(*pairs, against, margin))
    return dict(zip(names, holm(found), strict=True))


def words(epsilon: float) -> str:
    """An ε as people write it.

    Examples:
        >>> words(8 / 255), words(0.05)
        ('8/255', '0.05')
    """
    steps = 255 * epsilon
    return f"{steps:.0f}/255" if math.isclose(steps, round(steps), abs_tol=1e-6) else f"{epsilon:g}"


def _first(task: Task, split: Any, count: int) -> tuple[Tensor, Tensor]:
    """The first samples of a split, as float32 on the processor."""
    parts, seen = [], 0
    for inputs, targets in task.batches(split, 0, 0):
        if not (isinstance(inputs, Tensor) and inputs.ndim == 4 and inputs.is_floating_point()):
            shape = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
            raise TombolaError(
                f"robustness is measured on images (samples, channels, height, width) of numbers with a fraction, and "
                f"this task's inputs are {shape}; use a task on images"
            )
        parts.append((inputs.detach().cpu().float(), targets.cpu()))
        seen += len(inputs)
        if seen >= count:
            break
    images, labels = (torch.cat([part[own] for part in parts])[:count] for own in (0, 1))
    return images, labels


def _digits(count: int, shape: torch.Size) -> Tensor:
    """Handwritten digits from 0 to 1, scaled to the size of images of this shape."""
    from sklearn.datasets import load_digits

    pixels = torch.tensor(load_digits().images[:count], dtype=torch.float32)[:, None] / 16
    return F.interpolate(pixels, shape[2:], mode="bilinear").expand(-1, shape[1], -1, -1)
