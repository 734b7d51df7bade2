"""What a claim is: a paper's statement, and the runs that would show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tombola.methods import Method
from tombola.papers.claims.claim_outcome import Expectation
from tombola.papers.claims.measurement import Measurement
from tombola.papers.claims.units import POINTS, Unit
from tombola.robust import Robustness
from tombola.studies import Result, RunSpec, TaskOptions, make_task

Level = Literal["quick", "standard", "full"]
LEVELS: tuple[Level, ...] = ("quick", "standard", "full")


def after_training(result: Result) -> float:
    """What a trained network scores on the test split."""
    return result.metric


@dataclass(frozen=True)
class ClaimArm:
    """One arm of a claim: a method's tickets (None: the dense network), or a control of them, and what counts of them.

    unit: that of what is measured. lrs: learning rates that are tried in their training (None: what recipe and ticket
    say); the one with the best mean accuracy on the validation split counts. extra_epochs: of a dense network's
    training, beyond the recipe.
    """

    method: Method | None
    control: str = ""
    measured: Callable[[Result], float] = after_training
    unit: Unit = POINTS
    lrs: tuple[float | None, ...] = (None,)
    extra_epochs: float = 0.0


@dataclass(frozen=True)
class Protocol:
    """The runs of a claim: every arm on a task, over paired seeds.

    minutes: what they took on two cores; robustness: how what they trained is tried beyond the test split;
    metered: whether energy is measured, so that runs need a meter.
    """

    task: TaskOptions
    arms: Mapping[str, ClaimArm]
    seeds: int
    minutes: str
    robustness: Robustness | None = None
    metered: bool = False

    @property
    def units(self) -> dict[str, Unit]:
        """What each arm's figures are counted in."""
        return {name: arm.unit for name, arm in self.arms.items()}

    @property
    def runs(self) -> int:
        return len(self.arms) * self.seeds

    def specs(self, data_dir: Path | None = None) -> dict[str, list[list[RunSpec]]]:
        """Each arm's runs, by learning rate and seed; the data is read here, so TombolaError where it is missing."""
        task = make_task(replace(self.task, data_dir=data_dir))
        return {
            name: [
                [
                    RunSpec(
                        task,
                        arm.method,
                        arm.control,
                        seed,
                        extra_epochs=arm.extra_epochs,
                        lr=lr,
                        robustness=self.robustness,
                    )
                    for seed in range(self.seeds)
                ]
                for lr in arm.lrs
            ]
            for name, arm in self.arms.items()
        }


@dataclass(frozen=True)
class Claim:
    """A statement of a paper, its source, how we measure it, and what must come out if it is so.

    standard: at most 45 minutes on two cores; quick: at most 3, to see that it works; full: the paper's own size.
    differs: how the standard protocol differs from the paper's.
    """

    id: str
    title: str
    statement: str
    source: str
    differs: str
    protocols: Mapping[Level, Protocol | Measurement]
    expected: tuple[Expectation, ...]

    def expected_of(self, level: Level) -> tuple[Expectation, ...]:
        """The expectations whose arms a protocol has."""
        arms = self.protocols[level].arms
        return tuple(own for own in self.expected if own.left in arms and own.right in arms)
