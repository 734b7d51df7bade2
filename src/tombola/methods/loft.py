"""LoFT: tickets of filters, found while workers train parts of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import LATER, check_fields
from tombola.methods.filter_division import Divisions, InnerFilters, WhichBlocks
from tombola.methods.filter_rankings import Settling
from tombola.methods.filter_team import Team, TeamTask
from tombola.methods.local_steps import LocalSteps, Momentum, Statistics
from tombola.methods.protocol import DensityKind
from tombola.methods.worker_processes import Processes, ProcessRun, processes
from tombola.shrinking import check_equal, cut
from tombola.structure import Channels, CoupledUnits, Granularity, Probe, UnitMap, check_granularity, check_plain
from tombola.tickets import (
    Mask,
    Provenance,
    Scope,
    Seed,
    Ticket,
    Values,
    attach,
    copied,
    digest_of,
    put_values,
    select,
    tensors_of,
)
from tombola.training import Cost, Fit, Recipe, Run, SampleFlops, Task, fingerprint, first_of, identity, mixed, trial


@dataclass(frozen=True)
class LoFT:
    """Share the filters of residual blocks among workers, let each train its part, and keep the largest filters.

    Wang, Dun, Liao, Jermaine, Kyrillidis, LoFT: Finding Lottery Tickets through Filter-wise Training, AISTATS 2023.
    After each few steps the workers' networks are merged: what all have is averaged, and filters are written back to
    their places. Then filters are dealt anew. Every worker sees all training data, in an order of its own. Workers are
    the processes that torchrun started, or train one after another in this one, with the same result to rounding.

    Args:
        density: the share of the filters that may go which is kept, above 0 and at most 1.
        team: how many workers share the filters.
        local_steps: steps of each worker between two divisions.
        blocks: whose filters are shared: those of `every` residual block, as in the paper's text; or those of blocks
            that are not the first of their stage, in all stages but the first (`later`), as in its code and its count
            of bytes. Then all but the first blocks of stages are pruned.
        epochs: length of the search, with a schedule of its own; the recipe's if 0.
        epsilon: the rankings of filters have settled, and the ticket is drawn, when their distances are less than this
            share of what chance comes to; 0 draws the ticket at the end.
        window: how many rankings, one an epoch, must be near each other.
        scope: how layers share the density: each layer keeps the same share (`layerwise`), or all filters are ranked
            together (`global`).
        floor: filters that each layer keeps at least.
        weights: what the ticket trains from, with the whole schedule: the weights of the search (`inherited`), the
            initialisation (`init`), or another one (`fresh`).
        momentum: whether the optimizer begins anew after each division (`fresh`), or its state is averaged and dealt
            with the weights, and sent with them (`kept`).
        statistics: whether the batch norms' statistics are averaged, or those of the first worker (`first`).
        shares: what each worker has of each layer's filters, in proportion; equal shares if it is empty.
        limit: seconds after which a worker that does not answer is given up.
        granularity: whole channels, of which filters are a part.

    Raises:
        TombolaError: if a setting is out of range.

    Examples:
        >>> LoFT(density=0.3, team=4, epsilon=0.0).local_steps
        15
    """

    density: float = 0.5
    team: int = 2
    local_steps: int = 15
    blocks: WhichBlocks = "later"
    epochs: int = 0
    epsilon: float = 0.1
    window: int = 3
    scope: Scope = "layerwise"
    floor: int = 1
    weights: Literal["inherited", "init", "fresh"] = "inherited"
    momentum: Momentum = "fresh"
    statistics: Statistics = "averaged"
    shares: tuple[float, ...] = ()
    limit: float = field(default=300.0, metadata=LATER)
    granularity: Granularity = field(default_factory=Channels)

    density_kind: ClassVar[DensityKind] = "exact"

    def __post_init__(self) -> None:
        check_fields(self)
        check_granularity(self.granularity, self.density, self.scope)
        if not isinstance(self.granularity, Channels):
            raise TombolaError(f"workers share filters, and no {self.granularity.name}s; leave the granularity out")
        check_plain(self.granularity, "a division of filters among workers")
        if not 0 < self.density <= 1:
            raise TombolaError(f"density is {self.density}; give the share of filters to keep, above 0 and at most 1")
        for name, least in (("team", 1), ("local_steps", 1), ("epochs", 0), ("window", 2), ("floor", 1)):
            if getattr(self, name) < least:
                raise TombolaError(f"{name} is {getattr(self, name)}; give at least {least}")
        if self.epsilon < 0:
            raise TombolaError(f"epsilon is {self.epsilon}; give at least 0, which draws the ticket at the end")
        if self.limit <= 0:
            raise TombolaError(f"limit is {self.limit}; give the seconds to wait for a worker, above 0")
        if self.shares and (len(self.shares) != self.team or min(self.shares) <= 0):
            raise TombolaError(
                f"shares are {self.shares} for {self.team} workers; give one number above 0 for each, or none for "
                "equal shares"
            )

    def find(self, task: Task, run: Run) -> Ticket:
        with processes(self.team, self.limit, run.device) as link:
            return self._find(task, run, link)

    def _find(self, task: Task, run: Run, link: Processes | None) -> Ticket:
        recipe = self._recipe(task)
        model = task.build(run.seed)
        initial = digest_of(tensors_of(model))
        if link is not None:
            _check_agreement(link, {"seed": run.seed, "settings": identity(self), "network": initial}, run)
        model.to(run.device)
        units = run.units(self.granularity, task, model)
        assert isinstance(units, CoupledUnits)
        ranks = tuple(range(self.team)) if link is None else (link.rank,)
        with trial():
            filters = InnerFilters.of(model, units, run.probe(task), self.blocks)
            divisions = Divisions(filters, model, self.team, self.shares, run.seed)
            networks = {rank: cut(model, divisions.kept(0, rank)) for rank in ranks}
            check_equal(_masked(model, divisions, ranks[0]), networks[ranks[0]], run.probe(task))
        work = _Work.of(task, model, networks, run)
        team = Team(copied(model), networks)
        steps = LocalSteps(
            team,
            divisions,
            self.local_steps,
            Settling(self.epsilon, self.window),
            momentum=self.momentum,
            statistics=self.statistics,
            clip=task.recipe.clip,
            processes=link,
        )
        leads = link is None or link.leads
        own = run if link is None else ProcessRun(run, link, lambda: _of_workers(team))
        recipe = replace(recipe, accumulate=recipe.accumulate * len(ranks))
        before = own.cost
        fit = own.stage("search", TeamTask(task, ranks, leads, run.device), team, recipe=recipe, observers=[steps])
        spent = work.true(fit.cost)
        own.cost = before + spent
        history, values = fit.history, tensors_of(team.whole)
        if isinstance(own, ProcessRun) and link is not None:
            spent = own.summed(spent)
            run.cost += spent
            history, values = link.told((fit.history, tensors_of(team.whole)) if leads else ((), {}))
            run.history += [{"stage": "search", **row} for row in history]
        put_values(model, values)
        return self._drawn(task, run, model, filters, initial, Fit(history, spent))

    def rehearse(self, model: nn.Module, units: UnitMap, probe: Probe) -> Mask:
        """The mask that would be drawn of a network as it is now."""
        assert isinstance(units, CoupledUnits)
        filters = InnerFilters.of(model, units, probe, self.blocks)
        return self._masks(filters, model)[0]

    def _masks(self, filters: InnerFilters, model: nn.Module) -> tuple[Mask, Mask]:
        """The mask of weights that keeps the filters with the largest norms, and that of filters."""
        kept = select(filters.norms(tensors_of(model)), self.density, scope=self.scope, floor=self.floor)
        return filters.units.expand(kept, tensors_of(model)), kept

    def _recipe(self, task: Task) -> Recipe:
        """How the workers train."""
        recipe = task.recipe
        if recipe.precision == "fp16":
            raise TombolaError("workers share no scale of losses, which fp16 needs; give precision='bf16' or 'float32'")
        # Each worker clips its own gradient, and the average of a network that is dealt anew says nothing.
        return replace(recipe, epochs=self.epochs or recipe.epochs, clip=0.0, ema=0.0)

    def _drawn(self, task: Task, run: Run, model: nn.Module, filters: InnerFilters, initial: str, fit: Fit) -> Ticket:
        """The ticket of the filters with the largest norms."""
        (mask, kept), epochs = self._masks(filters, model), len(fit.history)
        removed = filters.units.removed(kept)
        pruned = copied(model)  # A copy, since the ticket keeps the values of removed weights, for controls.
        attach(mask, pruned).detach()  # Attaching zeroes the removed weights.
        whole = fit.history[-1].get("validation_metric") if fit.history else None
        provenance = Provenance(whole=whole, before=run.validate(task, pruned, task.recipe))
        if self.weights == "inherited":
            what = "end" if epochs == (self.epochs or task.recipe.epochs) else f"{epochs}ep"
            start: Seed | Values = Values(tensors_of(model), what, fit.cost.dense_epochs)
        else:
            seed = run.seed if self.weights == "init" else mixed(run.seed, 1)
            start = Seed(seed, initial if self.weights == "init" else digest_of(tensors_of(task.build(seed))))
        return Ticket(mask, start, removed=removed, provenance=provenance)


@dataclass(frozen=True)
class _Work:
    """FLOPs of a sample: on each worker's network, and on the whole one.

    Args:
        networks: of the workers that train here.
        whole: of the whole network.
    """

    networks: tuple[SampleFlops, ...]
    whole: SampleFlops

    @staticmethod
    def of(task: Task, model: nn.Module, networks: Mapping[int, nn.Module], run: Run) -> _Work:
        batch = first_of(task.batches("train", run.seed, 0))
        own = tuple(SampleFlops.measure(task, network, batch) for network in networks.values())
        return _Work(own, SampleFlops.measure(task, model, batch))

    def true(self, cost: Cost) -> Cost:
        """What a team's training really took: its loop counts each sample as if the first worker had it."""
        trained = cost.samples_backward
        evaluated = cost.samples_forward - trained
        each = sum(own.training for own in self.networks) / len(self.networks)
        flops = round(trained * each + evaluated * self.whole.forward)
        epochs = cost.dense_epochs * len(self.networks) * each / self.whole.training
        return replace(cost, flops=flops, dense_epochs=epochs)


def _masked(model: nn.Module, divisions: Divisions, rank: int) -> nn.Module:
    """A copy of the whole network in which only one worker's filters live."""
    masked, owners = copied(model), divisions.owners(0)
    kept = Mask.of({layer: owner == rank for layer, owner in owners.items()})
    attach(divisions.filters.units.expand(kept, tensors_of(model)), masked).detach()
    return masked


def _of_workers(team: Team) -> dict[str, Tensor]:
    """What a module has that no other process's has."""
    return {name: tensor for name, tensor in tensors_of(team).items() if name.startswith("networks.")}


def _check_agreement(link: Processes, given: Mapping[str, Any], run: Run) -> None:
    """TombolaError, in all processes, if one was given something else than the first."""
    own = {name: fingerprint(str(value)) for name, value in given.items()} | {"folder": run.folder is not None}
    first, *others = link.gathered(own)
    for rank, other in enumerate(others, 1):
        for name, value in first.items():
            if other[name] != value:
                what = "a folder, or none, unlike" if name == "folder" else f"another {name} than"
                raise TombolaError(f"worker {rank} was given {what} worker 0; give all the same, but for the device")
