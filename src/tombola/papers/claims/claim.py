"""What a claim is: a paper's statement, and the runs that would show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tombola.evidence import ONE_LOOK, EachSeed, Looks
from tombola.methods import Method
from tombola.papers.claims.claim_outcome import Expectation
from tombola.papers.claims.measurement import Measurement
from tombola.papers.claims.units import POINTS, Unit
from tombola.robust import Robustness
from tombola.studies import Result, RunSpec, TaskOptions, make_task
from tombola.training import Task, with_recipe

Level = Literal["quick", "standard", "full"]
LEVELS: tuple[Level, ...] = ("quick", "standard", "full")
Kind = Literal["a paper's", "ours", "a theorem"]


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
        best_of: further differences to try in turn, of which the best counts as of rates.

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
    best_of: tuple[Mapping[str, Any], ...] = ({},)

    @property
    def variants(self) -> list[tuple[float | None, Mapping[str, Any]]]:
        """What is tried: a learning rate and what differs from the task's recipe."""
        return [(lr, {**self.recipe, **more}) for lr in self.lrs for more in self.best_of]


@dataclass(frozen=True)
class Protocol:
    """The runs of a claim: every arm on a task, over paired seeds.

    Args:
        task: data, network and recipe.
        arms: what is compared, by name.
        seeds: how many seeds each arm has; the most that it may have, if they are added until the claim is decided.
        minutes: how long the runs take on two cores.
        robustness: how trained networks are tried beyond the test split; None if they are not.
        metered: whether the claim is about energy, so that its runs need a meter.
        sequential: whether seeds are added, from the third on, until the claim is decided.
    """

    task: TaskOptions
    arms: Mapping[str, ClaimArm]
    seeds: int
    minutes: str
    robustness: Robustness | None = None
    metered: bool = False
    sequential: bool = False

    @property
    def units(self) -> dict[str, Unit]:
        """The unit of each arm's figures."""
        return {name: arm.unit for name, arm in self.arms.items()}

    @property
    def runs(self) -> int:
        return len(self.arms) * self.seeds

    @property
    def looks(self) -> Looks:
        """How often the runs are looked at."""
        return EachSeed(self.seeds) if self.sequential else ONE_LOOK

    def specs(self, data_dir: Path | None = None) -> dict[str, list[list[RunSpec]]]:
        """List each arm's runs: for each of its variants one run a seed.

        Args:
            data_dir: the folder of the data; None for the usual places.

        Raises:
            TombolaError: if the data is missing; it is read here.
        """
        task = make_task(replace(self.task, data_dir=data_dir))

        def with_differences(recipe: Mapping[str, Any]) -> Task:
            return with_recipe(task, replace(task.recipe, **recipe)) if recipe else task

        tasks = {name: [with_differences(recipe) for _, recipe in arm.variants] for name, arm in self.arms.items()}
        return {
            name: [
                [
                    RunSpec(
                        own,
                        arm.method,
                        arm.control,
                        seed,
                        extra_epochs=arm.extra_epochs,
                        lr=lr,
                        robustness=self.robustness,
                    )
                    for seed in range(self.seeds)
                ]
                for own, (lr, _) in zip(tasks[name], arm.variants, strict=True)
            ]
            for name, arm in self.arms.items()
        }


@dataclass(frozen=True)
class Damage:
    """How much a density costs the best ticket: what makes densities of two experiments comparable.

    Args:
        of: the arms whose difference it is, as dense and IMP.
        paper: the same in the paper, in points.
    """

    of: tuple[str, str]
    paper: float


@dataclass(frozen=True)
class PaperProtocol:
    """How the paper did it, as data: beside it stands what we did, and whether that can decide.

    Args:
        table: which table or figure has the numbers.
        facts: what the paper did, by the names of `FACTS` in `side_by_side.py`.
        damage: what the density costs there.
        says: the paper's result in a few words, where expectations have no numbers of it.
    """

    table: str = ""
    facts: Mapping[str, str | float] = field(default_factory=dict)
    damage: Damage | None = None
    says: str = ""


@dataclass(frozen=True)
class Claim:
    """A statement of a paper, its source, how we measure it, and what we expect if the statement is true.

    Args:
        id: the claim's name, as on the command line.
        title: the statement in one line.
        question: what a user asks, to which it is an answer.
        short: what a user is told in one plain sentence, by what came out: one of the keys of `WORDS`.
        topic: the methods that it is about.
        statement: what the paper states.
        source: paper, venue, year and place in it.
        protocols: what to run at each level: "quick" takes at most 3 minutes on two cores and shows that the claim
            runs, "standard" takes at most 45, "full" has the paper's own size.
        expected: the comparisons of arms that must hold.
        kind: whose question it is; what a theorem says is checked.
        paper: how the paper did it, and what it found.
        why: why paper and measurement may differ.
        known: how that is known: "measured" or "supposed".
        disputed: where the paper's tables differ from its abstract.
        history: what was stopped, added or looked at before the protocol stood.
        next: what would change the verdict, and what it costs.
        beyond: why this machine cannot test it; "" if it can.
        notes: how the protocol differs from the paper's where the table does not show it.

    Examples:
        >>> from tombola.papers.claims import CLAIMS
        >>> print(*CLAIMS["missing-the-mark"].expected[:2], sep="\\n")
        snip shuffled ≥ snip
        snip fresh-init ≥ snip
    """

    id: str
    title: str
    question: str
    topic: str
    statement: str
    source: str
    protocols: Mapping[Level, Protocol | Measurement]
    expected: tuple[Expectation, ...]
    short: Mapping[str, str] = field(default_factory=dict)
    kind: Kind = "a paper's"
    paper: PaperProtocol = PaperProtocol()
    why: str = ""
    known: Literal["", "measured", "supposed"] = ""
    disputed: str = ""
    history: str = ""
    next: str = ""
    beyond: str = ""
    notes: str = ""

    def expected_of(self, level: Level) -> tuple[Expectation, ...]:
        """The expectations whose arms the protocol of this level has."""
        arms = self.protocols[level].arms
        return tuple(expected for expected in self.expected if expected.left in arms and expected.right in arms)
