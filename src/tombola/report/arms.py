"""Gathers results into arms: an arm is what was trained with several seeds and is compared as one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tombola.evidence import (
    ACCURACY,
    Comparison,
    Measure,
    Ranking,
    Sanity,
    Savings,
    Spent,
    Verdict,
    control_kind,
    interval,
    known_cost,
    paired_comparison,
    savings,
)
from tombola.registry import CONTROLS
from tombola.studies import Result, subject_kind


@dataclass(frozen=True)
class ArmResults:
    """The results of one method, control and density, one for each seed.

    Args:
        name: what the arm is called, as in `Result.arm`.
        method: the method's name; empty for dense.
        control: the control's name; empty for a ticket and for dense.
        density: the share of units that the arm keeps.
        results: the results by seed, in ascending order.
        measure: what their metric is.
    """

    name: str
    method: str
    control: str
    density: float
    results: tuple[Result, ...]
    measure: Measure = ACCURACY

    @property
    def role(self) -> str:
        """What the arm is among those of its method: "ticket", "dense" or the control's name."""
        return self.control or ("ticket" if self.method else "dense")

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(r.seed for r in self.results)

    @property
    def accuracy(self) -> tuple[float, float | None, float | None]:
        """The mean on the test split and its 95 % interval, a share in percent; no bounds for a single seed."""
        mean, low, high = (
            self.measure.scale * v for v in interval([r.metric for r in self.results], self.measure.bounds)
        )
        return (mean, low, high) if len(self.results) > 1 else (mean, None, None)

    @property
    def epochs(self) -> float:
        """The epochs that the arm was trained for, with those that its start had already; the most of any seed."""
        return max(r.epochs + r.epochs_spent for r in self.results)

    @property
    def weight_density(self) -> float:
        """Share of the prunable weights that are kept, mean over seeds."""
        return math.fsum(r.weight_density for r in self.results) / len(self.results)

    @property
    def network_density(self) -> float | None:
        """Share of all the network's parameters that are kept, mean over seeds; None if unknown."""
        densities = [r.network_density for r in self.results if r.network_density is not None]
        return math.fsum(densities) / len(densities) if densities else None

    @property
    def effective_density(self) -> float | None:
        """Share of weights that are kept and lie on a path from input to output, mean over seeds; None if unknown."""
        densities = [r.effective_density for r in self.results if r.effective_density is not None]
        return math.fsum(densities) / len(densities) if densities else None

    @property
    def collapsed(self) -> tuple[str, ...]:
        """The layers that lost all weights in at least one seed."""
        return tuple(dict.fromkeys(name for r in self.results for name in r.collapsed))

    def cost(self, of: str, key: str) -> float | None:
        """One entry of a cost ledger, mean over the seeds that have it.

        Args:
            of: the ledger's field in `Result`: "search" or "training".
            key: the entry, such as "seconds" or "dense_epochs".

        Returns:
            The mean; None if no seed has the entry.
        """
        ledgers: list[Mapping[str, float]] = [getattr(r, of) for r in self.results]
        values = [value for ledger in ledgers if (value := known_cost(ledger, key)) is not None]
        return math.fsum(values) / len(values) if values else None


@dataclass(frozen=True)
class GatheredArms:
    """The content of a report.

    Args:
        arms: the arms in the order in which they are read.
        verdicts: one for each method and density that was checked.
        sanity: the sanity checks of each method and density.
        rankings: of the methods against each other.
    """

    arms: tuple[ArmResults, ...]
    verdicts: tuple[Verdict, ...]
    sanity: tuple[Sanity, ...] = ()
    rankings: tuple[Ranking, ...] = ()

    @staticmethod
    def of(
        results: Iterable[Result],
        verdicts: Sequence[Verdict],
        sanity: Sequence[Sanity] = (),
        rankings: Sequence[Ranking] = (),
    ) -> GatheredArms:
        """Gather results into arms: dense first, then each method's tickets from the densest, controls below them.

        Args:
            results: of all runs, in any order. The dense network is an arm for each length of training.
            verdicts: kept as they are.
            sanity: kept as they are.
            rankings: kept as they are.
        """
        groups: dict[tuple, list[Result]] = defaultdict(list)
        for result in told_apart(results):
            groups[result.method, result.control, result.density, 0 if result.method else result.epochs].append(result)
        lengths = {epochs for method, control, _, epochs in groups if not method and not control}
        order = list(dict.fromkeys(method for method, *_ in groups))
        keys = sorted(groups, key=lambda key: (bool(key[0]), order.index(key[0]), -key[2], role_order(key[1]), key[3]))
        arms = [
            ArmResults(
                f"dense, {epochs} epochs" if not method and not control and len(lengths) > 1 else first.arm,
                method,
                control,
                density,
                tuple(sorted(group, key=lambda r: r.seed)),
                verdicts[0].measure if verdicts else ACCURACY,
            )
            for method, control, density, epochs in keys
            if (group := groups[method, control, density, epochs]) and (first := group[0])
        ]
        return GatheredArms(tuple(arms), tuple(verdicts), tuple(sanity), tuple(rankings))

    @property
    def measure(self) -> Measure:
        """What arms are compared by, as the verdicts say."""
        return self.verdicts[0].measure if self.verdicts else ACCURACY

    @property
    def methods(self) -> list[str]:
        """The methods' names, in reading order."""
        return list(dict.fromkeys(arm.method for arm in self.arms if arm.method))

    @property
    def densities(self) -> list[float]:
        """The densities of all methods' arms, largest first."""
        return sorted({arm.density for arm in self.arms if arm.method}, reverse=True)

    @property
    def controls(self) -> list[str]:
        """The controls' names, the most telling first."""
        return sorted({arm.control for arm in self.arms if arm.control}, key=role_order)

    @property
    def seeds(self) -> list[int]:
        """The seeds of all arms."""
        return sorted({seed for arm in self.arms for seed in arm.seeds})

    @property
    def seeds_differ(self) -> bool:
        """Whether some arms have other seeds than others, so that dense has another mean beside each ticket."""
        return len({arm.seeds for arm in self.arms}) > 1

    def tickets(self, method: str) -> list[ArmResults]:
        """A method's arms without its controls, the densest first."""
        return [arm for arm in self.arms if arm.method == method and not arm.control]

    def verdict(self, arm: ArmResults) -> Verdict | None:
        """The verdict on an arm's method at its density; None if there is none."""
        return next(
            (
                v
                for v in self.verdicts
                if v.subject == arm.method and math.isclose(v.density, arm.density, rel_tol=1e-9)
            ),
            None,
        )

    def dense(self, arm: ArmResults) -> ArmResults | None:
        """The dense arm with which an arm is compared; None if there is none.

        If dense was trained for several lengths, the one that the arm's verdict used; without a verdict, the one whose
        epochs are nearest to the arm's.
        """
        candidates = [candidate for candidate in self.arms if candidate.role == "dense"]
        verdict = self.verdict(arm)
        if verdict is not None and "dense" in verdict.means:
            # A verdict does not name its dense arm, but its mean accuracy does.
            metric = verdict.means["dense"]
            return min(candidates, key=lambda dense: abs(_mean_of(dense, verdict.seeds) - metric), default=None)
        return min(candidates, key=lambda dense: abs(dense.epochs - arm.epochs), default=None)

    def difference(self, arm: ArmResults) -> Comparison | None:
        """An arm minus dense, paired over the seeds that both have; None for dense itself and without a common seed.

        It is the verdict's, if the arm has one.
        """
        dense, verdict = self.dense(arm), self.verdict(arm)
        if verdict is not None and arm.role == "ticket":
            return verdict.dense
        if arm.role == "dense" or dense is None:
            return None
        metrics, dense_metrics = ({r.seed: r.metric for r in a.results} for a in (arm, dense))
        seeds = sorted(metrics.keys() & dense_metrics.keys())
        if not seeds:
            return None
        mine, its = ([values[seed] for seed in seeds] for values in (metrics, dense_metrics))
        return paired_comparison(mine, its, "dense", measure=self.measure)

    def savings(self, ticket: ArmResults) -> Savings | None:
        """What a ticket saves of its dense network's training; None without a common seed."""
        dense = self.dense(ticket)
        ledgers = {} if dense is None else {r.seed: _training_ledger(r) for r in dense.results}
        spent = {
            r.seed: Spent(r.search, _training_ledger(r), ledgers[r.seed], r.alive_flops)
            for r in ticket.results
            if r.seed in ledgers
        }
        return savings(ticket.method, ticket.density, spent) if spent else None

    @property
    def saved(self) -> list[Savings]:
        """The savings of every method's tickets."""
        tickets = (ticket for method in self.methods for ticket in self.tickets(method))
        return [saved for ticket in tickets if (saved := self.savings(ticket)) is not None]

    @property
    def countries(self) -> list[str]:
        """The countries for whose power grids energy and carbon were estimated."""
        return sorted({r.country for arm in self.arms for r in arm.results if r.country})


def told_apart(results: Iterable[Result]) -> list[Result]:
    """The same results, with numbers behind the names of different methods that are called the same.

    Users choose names, so two methods with different settings may have one; they must not become one arm.
    """
    kinds: dict[str, list[str]] = {}
    numbered = []
    for result in results:
        kinds_of_name = kinds.setdefault(result.method, [])
        kind = subject_kind(result.settings)
        if kind not in kinds_of_name:
            kinds_of_name.append(kind)
        number = kinds_of_name.index(kind) + 1
        numbered.append(result if number == 1 else replace(result, method=f"{result.method} #{number}"))
    return numbered


def _mean_of(arm: ArmResults, seeds: Sequence[int]) -> float:
    """An arm's mean metric over some seeds; infinite if it has not all of them."""
    metrics = {result.seed: result.metric for result in arm.results}
    return math.fsum(metrics[seed] for seed in seeds) / len(seeds) if set(seeds) <= metrics.keys() else math.inf


def _training_ledger(result: Result) -> dict[str, float]:
    """A training's costs; without those that are only an even share, for a network that trained with others."""
    shared = ("seconds", "energy", "carbon", "peak_memory") if result.together > 1 else ()
    return {key: value for key, value in result.training.items() if key not in shared}


def role_order(control: str) -> tuple[bool, int, str]:
    """The sort key of an arm: the ticket, then the registry's controls in its order, then others by name."""
    is_known = control_kind(control) in CONTROLS
    return bool(control), list(CONTROLS).index(control_kind(control)) if is_known else len(CONTROLS), control
