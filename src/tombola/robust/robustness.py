"""Measures a trained network on attacked, corrupted and foreign images, and its calibration."""

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
from tombola.training import Task, bring_along

BATCH = 500
RANGE_BATCHES = 20
SEVERITIES = range(1, 6)
LOWER = ("FPR95", "calibration error")
"""Endings of the names of measures that are better the lower they are."""


@dataclass(frozen=True)
class Robustness:
    """Measures of trained networks beyond their accuracy on the test split.

    Held-out classes, where the data has them, are foreign images too.

    Args:
        epsilons: how far attacks may move a pixel, as shares of the way from black to white.
        steps: how many steps of PGD, each of 2.5·ε / steps, from a random start.
        samples: how many samples of the test split to use, its first.
        corruptions: `core` (six kinds at five severities), `all` (nineteen, with the extra `robust`) or `none`.
        black_white: the values of black and white in the data; if None, each channel's extremes in training images.
        far: foreign images: handwritten digits scaled to size, noise.
        seed: of the attacks, the corruptions and the noise.

    Examples:
        >>> quick = Robustness(epsilons=(8 / 255,), samples=200, corruptions="none", far=("noise",))
        >>> quick.epsilons == (8 / 255,)
        True
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
        """Measure a network.

        Args:
            task: gives the test split, the training images and the metric.
            network: the trained network; its mode comes back afterwards.

        Returns:
            Accuracies, AUROC, FPR95 and calibration error by name, as shares of 1.

        Raises:
            TombolaError: the inputs are not images, or lie beyond black and white.
        """
        device = next(network.parameters()).device
        bring_along(task, device)
        images, targets = _first(task, "test", self.samples)
        low, high = self._bounds(task, images)
        with in_mode(network, "eval"):
            return self._measures(_Trial(task, network, images.clamp(low, high), targets, low, high, device))

    def _measures(self, trial: _Trial) -> dict[str, float]:
        logits = trial.logits(trial.images)
        measures = {"clean": trial.accuracy(logits), "calibration error": calibration_error(logits, trial.targets)}
        for epsilon in self.epsilons:
            measures[f"FGSM {words(epsilon)}"] = trial.attacked_accuracy(epsilon, 0, self.seed)
            measures[f"PGD {words(epsilon)}"] = trial.attacked_accuracy(epsilon, self.steps, self.seed)
        measures |= self._corrupted_accuracies(trial)
        for name, foreign in self._foreign_images(trial.task, trial).items():
            foreign_logits = trial.logits(foreign)
            for score_name, score in (("MSP", msp), ("energy", energy)):
                inside, outside = score(logits), score(foreign_logits)
                measures[f"{name}, {score_name} AUROC"] = auroc(inside, outside)
                measures[f"{name}, {score_name} FPR95"] = fpr95(inside, outside)
        return measures

    def _corrupted_accuracies(self, trial: _Trial) -> dict[str, float]:
        """The mean accuracy over all corruptions, over each kind's severities, and over each severity's kinds."""
        if self.corruptions == "none":
            return {}
        kinds, suite = SUITES[self.corruptions], self.corruptions
        accuracies = {
            (kind, s): trial.corrupted_accuracy(kind, s, self.seed, suite) for kind in kinds for s in SEVERITIES
        }
        groups = {"corruptions": list(accuracies.values())}
        groups |= {kind: [accuracies[kind, severity] for severity in SEVERITIES] for kind in kinds}
        groups |= {f"severity {severity}": [accuracies[kind, severity] for kind in kinds] for severity in SEVERITIES}
        return {name: math.fsum(values) / len(values) for name, values in groups.items()}

    def _bounds(self, task: Task, images: Tensor) -> tuple[Tensor, Tensor]:
        """Black and white of each channel, (channels, 1, 1). Raises TombolaError if test images lie beyond."""
        if self.black_white is not None:
            low, high = (torch.full((images.shape[1], 1, 1), value) for value in self.black_white)
        else:
            batches = islice(task.batches("train", 0, 0), RANGE_BATCHES)
            training = [inputs.detach().cpu().float() for inputs, _ in batches]
            low = torch.stack([inputs.amin((0, 2, 3)) for inputs in training]).amin(0)[:, None, None]
            high = torch.stack([inputs.amax((0, 2, 3)) for inputs in training]).amax(0)[:, None, None]
        tolerance = 0.02 * (high - low)  # training images may not contain the test images' extremes
        if not ((images >= low - tolerance) & (images <= high + tolerance)).all() or not (high > low).all():
            raise TombolaError(
                f"the test images reach from {images.min():.3g} to {images.max():.3g}, beyond black and white at "
                f"{low.min():.3g} and {high.max():.3g}; give what these are in your data, as --black-white 0 1"
            )
        return low, high

    def _foreign_images(self, task: Task, trial: _Trial) -> dict[str, Tensor]:
        foreign: dict[str, Tensor] = {}
        if "held-out" in getattr(task, "data", {}):
            foreign["held-out"] = _first(task, "held-out", self.samples)[0]
        if "digits" in self.far and getattr(task, "labels", {}).get("data") != "digits":
            foreign["digits"] = trial.to_data_scale(_digits(len(trial.images), trial.images.shape))
        if "noise" in self.far:
            generator = torch.Generator().manual_seed(self.seed)
            foreign["noise"] = trial.to_data_scale(torch.rand(trial.images.shape, generator=generator))
        return foreign


@dataclass(frozen=True, eq=False)
class _Trial:
    """A network in evaluation mode, test images on the CPU, and each channel's values of black and white."""

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

    def attacked_accuracy(self, epsilon: float, steps: int, seed: int) -> float:
        """Accuracy under PGD with this many steps; under FGSM if 0."""
        reach, bounds = epsilon * (self.high - self.low), (self.low, self.high)
        attacked = []
        for images, targets in zip(self.images.split(BATCH), self.targets.split(BATCH), strict=True):
            attack = (images.to(self.device), targets.to(self.device), self.task.loss, reach, bounds)
            attacked.append(pgd(self._call, *attack, steps=steps, seed=seed) if steps else fgsm(self._call, *attack))
        return self.accuracy(self.logits(torch.cat(attacked)))

    def corrupted_accuracy(self, kind: str, severity: int, seed: int, suite: Suite) -> float:
        pixels = ((self.images - self.low) / (self.high - self.low)).clamp(0, 1)
        return self.accuracy(self.logits(self.to_data_scale(corrupt(pixels, kind, severity, seed, suite))))

    def to_data_scale(self, pixels: Tensor) -> Tensor:
        """Pixels from 0 to 1 on the scale of the data."""
        return self.low + pixels * (self.high - self.low)

    def _call(self, images: Tensor) -> Any:
        return self.task.forward(self.network, images)


def compare_robustness(
    ticket: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]], against: str, margin: float = MARGIN
) -> dict[str, Comparison]:
    """Compare two arms measure by measure, paired by seed, with Holm's correction for the number of measures.

    Args:
        ticket: what `Robustness.measure` returned for the ticket, one mapping for each seed.
        other: the same for the other arm, with the seeds in the same order.
        against: the name of the other arm.
        margin: the difference that counts as equal, as a share of 1.

    Returns:
        A comparison for each measure that all mappings have; *better* means more robust, also for FPR95 and calibration
        error, where lower is better.

    Examples:
        >>> ticket, dense = [{"clean": 0.90}, {"clean": 0.91}], [{"clean": 0.80}, {"clean": 0.81}]
        >>> list(compare_robustness(ticket, dense, "dense"))
        ['clean']
    """
    names = [name for name in ticket[0] if all(name in measures for measures in (*ticket, *other))]
    comparisons = []
    for name in names:
        sign = -1 if name.endswith(LOWER) else 1
        pairs = ([sign * measures[name] for measures in arm] for arm in (ticket, other))
        comparisons.append(paired_comparison(*pairs, against, margin))
    return dict(zip(names, holm(comparisons), strict=True))


def words(epsilon: float) -> str:
    """An ε in the usual notation: as n/255 if it is a whole number of grey levels.

    Args:
        epsilon: a share of the way from black to white.

    Examples:
        >>> words(8 / 255), words(0.05)
        ('8/255', '0.05')
    """
    steps = 255 * epsilon
    return f"{steps:.0f}/255" if math.isclose(steps, round(steps), abs_tol=1e-6) else f"{epsilon:g}"


def _first(task: Task, split: Any, count: int) -> tuple[Tensor, Tensor]:
    """The first images of a split, in float32, and their targets; on the CPU."""
    batches, samples = [], 0
    for inputs, targets in task.batches(split, 0, 0):
        if not (isinstance(inputs, Tensor) and inputs.ndim == 4 and inputs.is_floating_point()):
            shape = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
            raise TombolaError(
                f"robustness is measured on images (samples, channels, height, width) of numbers with a fraction, and "
                f"this task's inputs are {shape}; use a task on images"
            )
        batches.append((inputs.detach().cpu().float(), targets.cpu()))
        samples += len(inputs)
        if samples >= count:
            break
    images, labels = (torch.cat(parts)[:count] for parts in zip(*batches, strict=True))
    return images, labels


def _digits(count: int, shape: torch.Size) -> Tensor:
    """Handwritten digits from 0 to 1, scaled to the size of images of this shape."""
    from sklearn.datasets import load_digits

    pixels = torch.tensor(load_digits().images[:count], dtype=torch.float32)[:, None] / 16
    return F.interpolate(pixels, shape[2:], mode="bilinear").expand(-1, shape[1], -1, -1)
