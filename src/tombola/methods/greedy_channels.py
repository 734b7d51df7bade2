"""Greedy forward selection of channels, layer by layer, from a network that was trained for a while."""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.channel_imitation import gram, imitation_weights
from tombola.methods.greedy_search import ChannelPicks, Goal, Losses, drawn, first, mean_metric, select_channels
from tombola.methods.prefix_cache import PrefixCache
from tombola.methods.protocol import DensityKind
from tombola.methods.score_freezing import SearchWarning
from tombola.registry import lower_is_better
from tombola.scores import Batch, Forward
from tombola.structure import (
    ChannelUnits,
    Granularity,
    Probe,
    SeparateChannels,
    Site,
    UnitMap,
    fold,
    silenced_sites,
    sites_of,
)
from tombola.tickets import Mask, Provenance, Ticket, Values, attach, put_values, select, tensors_of
from tombola.training import (
    Run,
    Snapshot,
    Step,
    Task,
    Until,
    autocast,
    channels_last,
    half_squared_error,
    length_of,
    metric_of,
    mixed,
    move,
)


@dataclass(frozen=True)
class GreedyChannels:
    """Train the whole network for a while, then build each layer anew from nothing, picking channel after channel.

    Greedy forward selection is by Ye et al. (ICML 2020; imitation NeurIPS 2020). Picked channels are multiplied by D·a,
    with D the number of the layer's channels and a ≥ 0 of sum 1; the ticket's values contain these factors. Layers
    follow each other from input to output, each on what the last ones left.

    Args:
        density: the largest share of channels to keep in each of those layers, above 0 and at most 1.
        tolerance: ends a layer where the metric is at most this share below the whole network's. A layer that never
            gets there is kept whole. None: picks until the density is reached.
        by: how candidates are judged: by the network's loss with each of them (`loss`), or by how well the layers
            behind get what they got before (`imitation`), with the best step to each pick.
        repeat: whether a channel may be picked again, so that fewer than picks are kept. Otherwise each is picked once
            at most, and with `loss` all have the same factor.
        candidates: how many random channels are tried for a pick; all if None.
        samples: on how many training samples the candidates are tried, new ones for each pick; on all if None.
        loss: the task's loss, or half the squared distance to the targets (`squared`).
        convergence: on how many training samples the metric of tolerance is taken.
        tune: epochs of training after each layer, from 0 to 1, by SGD without momentum.
        tune_lr: the learning rate of that training.
        pretrain: the point of the recipe where training stops and the search begins, as "5ep" or "500it"; its end if
            None.
        fine_tune: the epochs that the ticket prescribes for its training; as many as the recipe has if None.

    Raises:
        TombolaError: if a setting is out of range.

    Examples:
        >>> GreedyChannels(density=0.5, repeat=False).density_kind, GreedyChannels(tolerance=0.02).density_kind
        ('exact', 'outcome')
    """

    density: float = 0.5
    tolerance: float | None = None
    by: Literal["loss", "imitation"] = "loss"
    repeat: bool = True
    candidates: int | None = None
    samples: int | None = 256
    loss: Losses = "task"
    convergence: int = 2048
    tune: float = 0.0
    tune_lr: float = 2.5e-3
    pretrain: str | None = None
    fine_tune: int | None = None

    granularity: ClassVar[Granularity] = SeparateChannels()

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.density <= 1:
            raise TombolaError(
                f"density is {self.density:g}, which asks for more channels than exist or for none; give a share of "
                "them, above 0 and at most 1"
            )
        for name in ("candidates", "samples", "convergence", "fine_tune"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TombolaError(f"{name} is {value}; give at least 1")
        if self.tolerance is not None and not 0 <= self.tolerance < 1:
            raise TombolaError(f"the tolerance is {self.tolerance:g}; give a share of the metric from 0 to below 1")
        if not 0 <= self.tune <= 1:
            raise TombolaError(f"tune is {self.tune:g}; give a share of an epoch from 0 to 1")
        if self.pretrain is not None:
            Step.parse(self.pretrain)

    @property
    def density_kind(self) -> DensityKind:
        """Found where a tolerance decides, a bound where picks may repeat or end early, else exact."""
        if self.tolerance is not None:
            return "outcome"
        return "bound" if self.repeat or self.by == "imitation" else "exact"

    def rehearse(self, model: nn.Module, units: UnitMap, probe: Probe) -> Mask:
        """The mask of a network in which each layer keeps as many channels as may be picked."""
        assert isinstance(units, ChannelUnits)
        return units.expand(self._picks(units, model)[1], tensors_of(model))

    def _picks(self, units: ChannelUnits, model: nn.Module) -> tuple[Mapping[str, tuple[Site, ...]], Mask]:
        """The places of the channels that may be picked, by layer, and how many picks each layer has."""
        sites = sites_of(units.wiring, model)
        if not sites:
            raise TombolaError("no layer of this network has channels that could be picked; prune weights instead")
        sizes = {group.name: group.size for group in units.groups}
        return sites, select({n: torch.arange(sizes[n]) for n in sites}, self.density, scope="layerwise", floor=1)

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed).to(run.device)
        units = run.units(self.granularity, task, model)
        assert isinstance(units, ChannelUnits)
        sites, picks = self._picks(units, model)
        sizes = {group.name: group.size for group in units.groups}
        spent = self._pretrain(task, model, run)
        whole_metric = run.validate(task, model, task.recipe)
        goal = self._goal(task, model, run)
        whole_values = {name: tensor.clone() for name, tensor in tensors_of(model).items()}
        kept = {name: torch.ones(sizes[name], dtype=torch.bool) for name in sites}
        mask = units.expand(Mask.of(kept), tensors_of(model))
        not_reached: list[str] = []
        with run.bars.track("layers", len(sites)) as tick:
            for number, (name, layer_sites) in enumerate(sites.items()):
                dead = {other: ~bits for other, bits in kept.items()}
                silenced = silenced_sites(units.wiring, name, layer_sites, dead)
                choice = self._pick(task, model, run, number, (*layer_sites, *silenced), picks.kept(name), goal)
                if choice.enough:
                    kept[name] = choice.factors != 0
                    fold(model, layer_sites, choice.factors)
                    mask = units.expand(Mask.of(kept), tensors_of(model))
                    attach(mask, model).detach()  # Attaching zeroes the removed weights.
                    spent += self._tune(task, model, run, number, mask)
                else:
                    not_reached.append(name)
                count = int(kept[name].sum())
                row = {"stage": "layer", "layer": name, "kept": count, "of": sizes[name]}
                run.history.append(row | {"loss": choice.loss, "enough": choice.enough})
                tick(f"{name}: {count} of {sizes[name]} channels")
        if not_reached:
            names = ", ".join(f"'{name}'" for name in not_reached[:3]) + (", …" if len(not_reached) > 3 else "")
            warnings.warn(
                f"{len(not_reached)} of {len(sites)} layers ({names}) did not come within the tolerance "
                f"{self.tolerance:g} and are kept whole; train longer, or give a larger tolerance or density",
                SearchWarning,
                stacklevel=2,
            )
        values = tensors_of(model)
        # Removed weights get back what they were: a control that shuffles the mask trains some of them.
        for name, bits in mask.items():
            values[name] = torch.where(bits.to(run.device), values[name], whole_values[name])
        return Ticket(
            mask,
            Values(values, "transformed", spent),
            recipe={} if self.fine_tune is None else {"epochs": self.fine_tune},
            removed=units.removed(Mask.of(kept)),
            provenance=Provenance(whole=whole_metric, before=run.validate(task, model, task.recipe)),
        )

    def _pretrain(self, task: Task, model: nn.Module, run: Run) -> float:
        """Train the model up to the point where the search begins, and give the epochs that this took."""
        if self.pretrain is None:
            return float(len(run.stage("pretrain", task, model).history))
        steps, point = task.recipe.steps(length_of(task.batches("train", run.seed, 0))), Step.parse(self.pretrain)
        begin = point.iterations(steps)
        if begin > steps * task.recipe.epochs:
            raise TombolaError(
                f"pretrain is '{self.pretrain}', but the recipe ends after {task.recipe.epochs} epochs of {steps} "
                "steps; give an earlier point, or a longer recipe"
            )
        if begin:
            snapshot = Snapshot(point)
            run.stage("pretrain", task, model, observers=[snapshot, Until(math.ceil(begin / steps))])
            put_values(model, snapshot.taken)
        return begin / steps

    def _goal(self, task: Task, model: nn.Module, run: Run) -> Goal | None:
        """What each layer is to reach, where there is a tolerance."""
        if self.tolerance is None:
            return None
        batches = self._move(first(task.batches("train", mixed(run.seed, 1), 0), self.convergence), task, model, run)

        def measured(forward: Forward) -> dict[str, Any]:
            with self._prefix_cache(task, model, (), forward, run) as network:
                return {"metric": mean_metric(task.metric, batches, network)}

        whole_metric = run.once("whole", task, model, measured)["metric"]
        return Goal(whole_metric, self.tolerance, tuple(batches), task.metric, bool(lower_is_better(metric_of(task))))

    def _pick(
        self,
        task: Task,
        model: nn.Module,
        run: Run,
        number: int,
        sites: tuple[Site, ...],
        picks: int,
        goal: Goal | None,
    ) -> ChannelPicks:
        """Pick a layer's channels, or read which were picked before."""

        def work(forward: Forward) -> dict[str, Any]:
            size = max(max(site.units) for site in sites) + 1
            draws = self._draw_batches(task, model, run, number)
            if self.by == "imitation":
                products = gram(model, sites, size, forward, (inputs for inputs, _ in next(draws)))
                with self._prefix_cache(task, model, sites, forward, run) as network:
                    return asdict(_pick_by_imitation(products, picks, self.repeat, network, goal))
            with self._prefix_cache(task, model, sites, forward, run) as network:
                return asdict(
                    select_channels(
                        network,
                        draws,
                        size,
                        picks,
                        task.loss if self.loss == "task" else half_squared_error,
                        repeat=self.repeat,
                        candidates=self.candidates,
                        generator=torch.Generator().manual_seed(mixed(run.seed, 2, number)),
                        goal=goal,
                    )
                )

        return ChannelPicks(**run.once(f"layer-{number:02d}", task, model, work))

    def _tune(self, task: Task, model: nn.Module, run: Run, number: int, mask: Mask) -> float:
        """Train for a part of an epoch, another epoch for each layer, and give the epochs that this took."""
        steps = task.recipe.steps(length_of(task.batches("train", run.seed, 0)))
        length = round(self.tune * steps)
        if not length:
            return 0.0
        recipe = replace(
            task.recipe,
            epochs=number + 1,
            start=f"{(number + 1) * steps - length}it",
            optimizer="sgd",
            options=(),
            lr=self.tune_lr,
            momentum=0.0,
            nesterov=False,
            schedule="constant",
            warmup=0.0,
        )
        run.stage(f"tune-{number:02d}", task, model, recipe=recipe, attached=mask)
        return length / steps

    def _draw_batches(self, task: Task, model: nn.Module, run: Run, number: int) -> Generator[list[Batch]]:
        for batches in drawn(task, mixed(run.seed, 3, number), self.samples):
            yield self._move(batches, task, model, run)

    def _move(self, batches: Iterable[Batch], task: Task, model: nn.Module, run: Run) -> list[Batch]:
        batches = list(batches)
        layout = bool(batches) and channels_last(task, model, task.recipe, batches[0])
        return [move(batch, run.device, layout) for batch in batches]

    @contextmanager
    def _prefix_cache(
        self, task: Task, model: nn.Module, sites: tuple[Site, ...], forward: Forward, run: Run
    ) -> Generator[PrefixCache]:
        """The network to try, in the precision of training, in which losses and metrics are taken as well."""
        with autocast(task.recipe, run.device), PrefixCache(model, sites, forward).ready() as network:
            yield network


def _pick_by_imitation(
    products: Tensor, picks: int, repeat: bool, network: PrefixCache, goal: Goal | None
) -> ChannelPicks:
    """The factors after the last pick; with a goal, after the fewest picks that meet it, which halving finds."""
    _, steps, errors = imitation_weights(products, picks, repeat)
    if goal is None:
        return ChannelPicks(steps[-1], errors[-1], True)
    low, high = 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if goal.met(network, steps[middle]) else (middle + 1, high)
    last_pick = min(low, len(steps) - 1)
    return ChannelPicks(steps[last_pick], errors[last_pick], low < len(steps))
