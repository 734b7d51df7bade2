"""What a study compares its arms by: the task's metric, and further measures of each run."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError, unknown
from tombola.evidence import Better, Measure
from tombola.registry import METRICS, lower_is_better
from tombola.registry.metric_direction import name_of
from tombola.robust import calibration_error
from tombola.scores import batch_size
from tombola.structure import in_mode
from tombola.studies.result import Result
from tombola.tickets import device_of
from tombola.training import (
    Task,
    TaskWrapper,
    adversary_of,
    evaluate,
    first_of,
    metric_of,
    move,
    registered,
    robust_metric,
)

ROBUST = "robust-accuracy"
NOT_ADVERSARIAL = f"{ROBUST} is a measure of adversarial tasks; make this one so by tb.adversarial(…)"
RECORDED = {
    "loss": Measure("loss", lower=True, share=False),
    "training-seconds": Measure("training-seconds", lower=True, share=False),
    "step-memory": Measure("step-memory", lower=True, share=False),
}
"""Measures that every run has."""
MEASURED = {
    "calibration-error": Measure("calibration-error", lower=True),
    "latency": Measure("latency", lower=True, share=False),
    ROBUST: Measure(ROBUST),
}
"""Measures that are taken of the trained network where they are asked for: latency is in seconds a sample, and robust
accuracy, which an adversarial task is asked for, is that under the attacks of its check.
"""
ATTACKED = 2000
"""How many samples of the test split are attacked, its first."""
CALLS = 15
"""How often a network is called for its latency, which is the median."""


class DirectionWarning(UserWarning):
    """Which values of a metric are better was guessed."""


def further(names: Sequence[str | Measure]) -> tuple[Measure, ...]:
    """Further measures by their names: recorded ones, measured ones, or metrics of the registry.

    Args:
        names: a name, or a measure of such a name with another margin or direction.

    Raises:
        TombolaError: if there is none of a name.

    Examples:
        >>> [measure.lower for measure in further(["loss", "top-5"])]
        [True, False]
    """
    return tuple(_further(own) if isinstance(own, str) else replace(own, name=_further(own.name).name) for own in names)


def also_of(task: Task, asked: Sequence[str | Measure]) -> Sequence[str | Measure]:
    """The further measures that were asked for, and robust accuracy where the task is adversarial.

    Raises:
        TombolaError: robust accuracy is asked for, and the task is not adversarial.
    """
    is_asked = ROBUST in [own if isinstance(own, str) else own.name for own in asked]
    if adversary_of(task) is not None:
        return asked if is_asked else (*asked, ROBUST)
    if is_asked:
        raise TombolaError(NOT_ADVERSARIAL)
    return asked


def to_measure(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the further measures that must be taken of the trained network, in one order."""
    return tuple(sorted(name for name in set(names) if name not in RECORDED))


def value_of(result: Result, name: str) -> float:
    """A further measure of a finished run."""
    recorded = {
        "loss": result.loss,
        "training-seconds": result.training.get("seconds", math.nan),
        "step-memory": result.training.get("step_memory", math.nan),
    }
    return recorded[name] if name in RECORDED else result.measured[name]


def measured(task: Task, network: nn.Module, names: Sequence[str]) -> dict[str, float]:
    """Take further measures of a trained network on the test split.

    Args:
        task: gives the split.
        network: in whose evaluation mode they are taken; its mode comes back.
        names: of measures that `to_measure` gave.
    """
    return {name: _measured(task, network, name) for name in names}


def check_direction(task: Task, asked: Measure | Better | None) -> None:
    """Say which values of the task's metric count as better, where that is guessed.

    Args:
        task: gives the metric.
        asked: what the user says.

    Raises:
        TombolaError: the user says what no metric is.
    """
    if asked is None:
        if registered(metric_of(task)) is None and lower_is_better(metric_of(task)) is None:
            called = f" '{name}'" if (name := name_of(metric_of(task))) else ""
            warnings.warn(
                f"higher values of the metric{called} are taken as better; if it is an error, say so: "
                "--better lower to a command, better = 'lower' in a study file, measure='lower' in Python",
                DirectionWarning,
                stacklevel=3,
            )
    elif not isinstance(asked, Measure) and asked not in ("lower", "higher"):
        raise TombolaError(f"the measure is '{asked}'; give 'lower', 'higher' or a Measure")


@dataclass(frozen=True)
class WithMetric(TaskWrapper):
    """A task with another metric.

    Args:
        task: the task.
        other: the metric.
    """

    other: Any = None

    @property
    def metric(self) -> Any:
        return self.other


def _further(name: str) -> Measure:
    if own := (RECORDED | MEASURED).get(name):
        return own
    if name not in METRICS:
        raise unknown("measure", name, [*RECORDED, *MEASURED, *METRICS])
    return Measure(name, share=METRICS.entry(name).unit != "number")


def _measured(task: Task, network: nn.Module, name: str) -> float:
    if name == "latency":
        return _latency(task, network)
    if name == ROBUST:
        return _robust_accuracy(task, network)
    if name == "calibration-error":
        return calibration_error(*_outputs(task, network))
    return evaluate(WithMetric(task, METRICS[name]), network, "test", task.recipe)[0]


def _robust_accuracy(task: Task, network: nn.Module) -> float:
    """The task's metric under its check's attacks, the lowest of them."""
    adversary = adversary_of(task)
    if adversary is None:
        raise TombolaError(NOT_ADVERSARIAL)
    attacks = adversary.check.attacks(adversary.attack).values()
    return min(robust_metric(task, network, attack, samples=ATTACKED)[0] for attack in attacks)


@torch.no_grad()
def _outputs(task: Task, network: nn.Module) -> tuple[Tensor, Tensor]:
    device = device_of(network)
    with in_mode(network, "eval"):
        batches = [move(batch, device) for batch in task.batches("test", 0, 0)]
        outputs = [task.forward(network, inputs).float().cpu() for inputs, _ in batches]
    return torch.cat(outputs), torch.cat([targets.cpu() for _, targets in batches])


@torch.no_grad()
def _latency(task: Task, network: nn.Module) -> float:
    """Seconds a sample of a batch of the test split, median of some calls after one that is not counted."""
    device = device_of(network)
    batch = first_of(task.batches("test", 0, 0))
    inputs, _ = move(batch, device)
    seconds = []
    with in_mode(network, "eval"):
        for _ in range(CALLS + 1):
            began = time.perf_counter()
            task.forward(network, inputs)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - began)
    return median(seconds[1:]) / batch_size(batch)
