"""Results gathered into arms: what was trained over several seeds and is compared as one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tombola.evidence import (
    Comparison,
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
    """All seeds of one method, control and density; `name` as in `Result.arm`."""

    name: str
    method: str
    control: str
    density: float
    results: tuple[Result, ...]

    @property
    def role(self) -> str:
        """What it is beside the others of its method: "ticket", "dense", or the control's name."""
        return self.control or ("ticket" if self.method else "dense")

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(r.seed for r in self.results)

    @property
    def accuracy(self) -> tuple[float, float | None, float | None]:
        """Mean and 95 % interval in percent; no interval for one seed."""
        mean, low, high = (100 * value for value in interval([r.metric for r in self.results]))
        return (mean, low, high) if len(self.results) > 1 else (mean, None, None)

    @property
    def epochs(self) -> float:
        """All that it was trained for, what went into its start included."""
        return max(r.epochs + r.epochs_spent for r in self.results)

    @property
    def weight_density(self) -> float:
        return math.fsum(r.weight_density for r in self.results) / len(self.results)

    @property
    def effective_density(self) -> float | None:
        """Share of the weights that are kept and lie on a path from input to output; None where it is unknown."""
        densities = [r.effective_density for r in self.results if r.effective_density is not None]
        return math.fsum(densities) / len(densities) if densities else None

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Layers with nothing left in any seed."""
        return tuple(dict.fromkeys(name for r in self.results for name in r.collapsed))

    def cost(self, of: str, key: str) -> float | None:
        """Mean over seeds of one entry of `Result.search` or `Result.training`; None where no seed knows it."""
        ledgers: list[Mapping[str, float]] = [getattr(r, of) for r in self.results]
        values = [value for ledger in ledgers if (value := known_cost(ledger, key)) is not None]
        return math.fsum(values) / len(values) if values else None


@dataclass(frozen=True)
class GatheredArms:
    """What a report is about: arms in reading order, verdict and sanity checks of each method and density."""

    arms: tuple[ArmResults, ...]
    verdicts: tuple[Verdict, ...]
    sanity: tuple[Sanity, ...] = ()

    @staticmethod
    def of(results: Iterable[Result], verdicts: Sequence[Verdict], sanity: Sequence[Sanity] = ()) -> GatheredArms:
        groups: dict[tuple, list[Result]] = defaultdict(list)
        for result in told_apart(results):
            groups[result.method, result.control, result.density, 0 if result.method else result.epochs].append(result)
        lengths = {epochs for method, control, _, epochs in groups if not method and not control}
        order = list(dict.fromkeys(method for method, *_ in groups))
        keys = sorted(groups, key=lambda k: (bool(k[0]), order.index(k[0]), -k[2], role_order(k[1]), k[3]))
        arms = [
            ArmResults(
                f"dense, {epochs} epochs" if not method and not control and len(lengths) > 1 else first.arm,
                method,
                control,
                density,
                tuple(sorted(group, key=lambda r: r.seed)),
            )
            for method, control, density, epochs in keys
            if (group := groups[method, control, density, epochs]) and (first := group[0])
        ]
        return GatheredArms(tuple(arms), tuple(verdicts), tuple(sanity))

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(arm.method for arm in self.arms if arm.method))

    @property
    def densities(self) -> list[float]:
        """Every density of a method's arms, largest first."""
        return sorted({arm.density for arm in self.arms if arm.method}, reverse=True)

    @property
    def controls(self) -> list[str]:
        return sorted({arm.control for arm in self.arms if arm.control}, key=role_order)

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for arm in self.arms for seed in arm.seeds})

    def tickets(self, method: str) -> list[ArmResults]:
        return [arm for arm in self.arms if arm.method == method and not arm.control]

    def verdict(self, arm: ArmResults) -> Verdict | None:
        """The verdict that an arm belongs to."""
        return next((v for v in self.verdicts if v.subject == arm.method and _same(v.density, arm.density)), None)

    def dense(self, arm: ArmResults) -> ArmResults | None:
        """The dense arm that an arm is measured against.

        Where dense was trained for several lengths, it is the one that the arm's verdict used, else the one
        nearest to all that the arm was trained for.
        """
        candidates = [a for a in self.arms if a.role == "dense"]
        verdict = self.verdict(arm)
        if verdict is not None and "dense" in verdict.means:
            used = 100 * verdict.means["dense"]
            return min(candidates, key=lambda a: abs(a.accuracy[0] - used), default=None)
        return min(candidates, key=lambda a: abs(a.epochs - arm.epochs), default=None)

    def difference(self, arm: ArmResults) -> Comparison | None:
        """Arm minus dense over the seeds that both have; None for dense and where they share no seed."""
        dense = self.dense(arm)
        if arm.role == "dense" or dense is None:
            return None
        mine, other = ({r.seed: r.metric for r in a.results} for a in (arm, dense))
        shared = sorted(mine.keys() & other.keys())
        return paired_comparison([mine[s] for s in shared], [other[s] for s in shared], "dense") if shared else None

    def savings(self, ticket: ArmResults) -> Savings | None:
        """What a ticket saves of its dense network's training; None where they share no seed."""
        dense = self.dense(ticket)
        beside = {} if dense is None else {r.seed: _own_ledger(r) for r in dense.results}
        spent = {r.seed: Spent(r.search, _own_ledger(r), beside[r.seed]) for r in ticket.results if r.seed in beside}
        return savings(ticket.method, ticket.density, spent) if spent else None

    @property
    def saved(self) -> list[Savings]:
        """The savings of every method's tickets."""
        tickets = (ticket for method in self.methods for ticket in self.tickets(method))
        return [own for ticket in tickets if (own := self.savings(ticket)) is not None]

    @property
    def countries(self) -> list[str]:
        """Those for whose grids energy and carbon were estimated."""
        return sorted({r.country for arm in self.arms for r in arm.results if r.country})


def told_apart(results: Iterable[Result]) -> list[Result]:
    """The same results, where two subjects of one name are numbered: a name is no identity."""
    by_label: dict[str, list[str]] = {}
    named = []
    for result in results:
        subjects = by_label.setdefault(result.method, [])
        kind = subject_kind(result.settings)
        if kind not in subjects:
            subjects.append(kind)
        number = subjects.index(kind) + 1
        named.append(result if number == 1 else replace(result, method=f"{result.method} #{number}"))
    return named


def _own_ledger(result: Result) -> dict[str, float]:
    """What a training took; without what is only its share of what many took that trained together."""
    shared = ("seconds", "energy", "carbon", "peak_memory") if result.together > 1 else ()
    return {key: value for key, value in result.training.items() if key not in shared}


def role_order(control: str) -> tuple[bool, int, str]:
    """Sort key: the ticket, then the known controls from the most telling, then others by name."""
    is_known = control_kind(control) in CONTROLS
    return bool(control), list(CONTROLS).index(control_kind(control)) if is_known else len(CONTROLS), control


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9)
