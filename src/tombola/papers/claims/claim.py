"""What a claim is: a paper's statement, and the runs that would show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tombola.methods import Method
from tombola.papers.claims.claim_outcome import Expectation
from tombola.papers.claims.measurement import Measurement
from tombola.papers.claims.units import POINTS, Unit
from tombola.robust import Robustness
from tombola.studies import Result, RunSpec, TaskOptions, make_task
from tombola.training import with_recipe

Level = Literal["quick", "standard", "full"]
LEVELS: tuple[Level, ...] = ("quick", "standard", "full")


def after_training(result: Result) -> float:
    """The metric of a trained network on the test split."""
    return result.metric


@dataclass(frozen=True)
class ClaimArm:
    """One arm of a claim: a method's tickets, a control of them or the dense network, and what is measured of them.

    Args:
        method: finds the tickets; None for the dense network.
        control: name of a control that is trained in place of the tickets; "" for the tickets themselves.
        measured: gives the figure of a run; by default its metric on the test split.
        unit: the unit of that figure.
        lrs: learning rates to try in training, None for the one that recipe and ticket prescribe. The rate with the
            best mean accuracy on the validation split counts.
        extra_epochs: how many epochs a dense network trains beyond the recipe.
        recipe: what differs from the task's recipe, for the arm's searches and trainings.

    Examples:
        >>> import tombola as tb
        >>> ClaimArm(tb.method("snip", density=0.1), control="shuffle").unit.name
        'points'
    """

    method: Method | None
    control: str = ""
    measured: Callable[[Result], float] = after_training
    unit: Unit = POINTS
    lrs: tuple[float | None, ...] = (None,)
    extra_epochs: float = 0.0
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """The runs of a claim: every arm on a task, over paired seeds.

    Args:
        task: data, network and recipe.
        arms: what is compared, by name.
        seeds: how many seeds each arm has.
        minutes: how long the runs took on two cores.
        robustness: how trained networks are tried beyond the test split; None if they are not.
        metered: whether the claim is about energy, so that its runs need a meter.
    """

    task: TaskOptions
    arms: Mapping[str, ClaimArm]
    seeds: int
    minutes: str
    robustness: Robustness | None = None
    metered: bool = False

    @property
    def units(self) -> dict[str, Unit]:
        """The unit of each arm's figures."""
        return {name: arm.unit for name, arm in self.arms.items()}

    @property
    def runs(self) -> int:
        return len(self.arms) * self.seeds

    def specs(self, data_dir: Path | None = None) -> dict[str, list[list[RunSpec]]]:
        """List each arm's runs: for each of its learning rates one run a seed.

        Args:
            data_dir: the folder of the data; None for the usual places.

        Raises:
            TombolaError: if the data is missing; it is read here.
        """
        task = make_task(replace(self.task, data_dir=data_dir))
        tasks = {
            name: with_recipe(task, replace(task.recipe, **arm.recipe)) if arm.recipe else task
            for name, arm in self.arms.items()
        }
        return {
            name: [
                [
                    RunSpec(
                        tasks[name],
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
    """A statement of a paper, its source, how we measure it, and what we expect if the statement is true.

    Args:
        id: the claim's name, as on the command line.
        title: the statement in one line.
        statement: what the paper states.
        source: paper, venue, year and place in it.
        differs: how the standard protocol differs from the paper's.
        protocols: what to run at each level: "quick" takes at most 3 minutes on two cores and shows that the claim
            runs, "standard" takes at most 45, "full" has the paper's own size.
        expected: the comparisons of arms that must hold.

    Examples:
        >>> from tombola.papers.claims import CLAIMS
        >>> print(*CLAIMS["rewinding"].expected, sep="\\n")
        learning-rate rewinding ≥ rewind to step
        rewind to step ≥ rewind to init
    """

    id: str
    title: str
    statement: str
    source: str
    differs: str
    protocols: Mapping[Level, Protocol | Measurement]
    expected: tuple[Expectation, ...]

    def expected_of(self, level: Level) -> tuple[Expectation, ...]:
        """The expectations whose arms the protocol of this level has."""
        arms = self.protocols[level].arms
        return tuple(expected for expected in self.expected if expected.left in arms and expected.right in arms)
