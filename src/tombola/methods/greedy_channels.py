"""Greedy forward selection of channels, layer by layer, from a network that was trained for a while."""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator, Iterable
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
from tombola.scores import Batch, Forward
from tombola.structure import Channels, ChannelUnits, Granularity, Site, fold, silenced_sites, sites_of
from tombola.tickets import Mask, Provenance, Ticket, Values, attach, put_values, select, tensors_of
from tombola.training import Run, Snapshot, Step, Task, Until, autocast, half_squared_error, length_of, mixed, move


@dataclass(frozen=True)
class GreedyChannels:
    """Train the whole network for a while, then build each layer anew from nothing, picking channel after channel.

    Picked channels are multiplied by D · a, with a ≥ 0 of sum 1 and D the layer's channels, and these factors are
    folded into the ticket's values; layers follow each other from input to output, each on what the last ones left.
    density: share of all those layers' channels that may stay, the same in each. tolerance: end a layer where the
    metric on `convergence` training samples has come this near, relatively, to the whole network's; a layer that never
    does is kept whole. by: the loss of the network for every candidate, or how well the layers behind are given what
    they got before (`imitation`), with the best step to each pick. repeat: whether a channel may be picked again, so
    that fewer than picks are kept; else each channel once, all with the same factor. candidates: so many random ones a
    pick; None: all. samples: training samples on which the candidates of a pick are tried, new ones for each pick;
    None: all. loss: the task's, or half the squared distance to targets. tune: epochs of SGD with `tune_lr` after each
    layer. pretrain: the point of the recipe where training stops and the search begins, as "5ep" or "500it"; None: its
    end. fine_tune: epochs prescribed to the ticket; None: as many as the recipe has.
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

    granularity: ClassVar[Granularity] = Channels()

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.density <= 1:
            raise TombolaError(
                f"density is {self.density:g}, which asks for more channels than exist or for none; give a share of "
                "them, above 0 and at most 1"
            )
        for name in ("candidates", "samples", "convergence", "fine_tune"):
            own = getattr(self, name)
            if own is not None and own < 1:
                raise TombolaError(f"{name} is {own}; give at least 1")
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

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed).to(run.device)
        units = run.units(self.granularity, task, model)
        assert isinstance(units, ChannelUnits)
        sites = sites_of(units.wiring, model)
        if not sites:
            raise TombolaError("no layer of this network has channels that could be picked; prune weights instead")
        sizes = {group.name: group.size for group in units.groups}
        picks = select({name: torch.arange(sizes[name]) for name in sites}, self.density, scope="layerwise", floor=1)
        spent = self._pretrained(task, model, run)
        whole = run.validate(task, model, task.recipe)
        goal = self._goal(task, model, run)
        before = {name: tensor.clone() for name, tensor in tensors_of(model).items()}
        kept = {name: torch.ones(sizes[name], dtype=torch.bool) for name in sites}
        mask = units.expand(Mask.of(kept), tensors_of(model))
        missed: list[str] = []
        with run.bars.track("layers", len(sites)) as tick:
            for number, (name, own) in enumerate(sites.items()):
                silenced = silenced_sites(units.wiring, name, own, {other: ~chosen for other, chosen in kept.items()})
                picked = self._pick(task, model, run, number, (*own, *silenced), picks.kept(name), goal)
                if picked.enough:
                    kept[name] = picked.factors != 0
                    fold(model, own, picked.factors)
                    mask = units.expand(Mask.of(kept), tensors_of(model))
                    attach(mask, model).detach()
                    spent += self._tuned(task, model, run, number, mask)
                else:
                    missed.append(name)
                count = int(kept[name].sum())
                row = {"stage": "layer", "layer": name, "kept": count, "of": sizes[name]}
                run.history.append(row | {"loss": picked.loss, "enough": picked.enough})
                tick(f"{name}: {count} of {sizes[name]} channels")
        if missed:
            names = ", ".join(f"'{name}'" for name in missed[:3]) + (", …" if len(missed) > 3 else "")
            warnings.warn(
                f"{len(missed)} of {len(sites)} layers ({names}) did not come within the tolerance "
                f"{self.tolerance:g} and are kept whole; train longer, or give a larger tolerance or density",
                SearchWarning,
                stacklevel=2,
            )
        after = tensors_of(model)
        whole_again = {name: torch.where(bits.to(run.device), after[name], before[name]) for name, bits in mask.items()}
        return Ticket(
            mask,
            Values({**after, **whole_again}, "transformed", spent),
            recipe={} if self.fine_tune is None else {"epochs": self.fine_tune},
            removed=units.removed(Mask.of(kept)),
            provenance=Provenance(whole=whole, before=run.validate(task, model, task.recipe)),
        )

    def _pretrained(self, task: Task, model: nn.Module, run: Run) -> float:
        """Train the model up to the point where the search begins; the epochs that this took."""
        if self.pretrain is None:
            return float(len(run.stage("pretrain", task, model).history))
        steps, point = length_of(task.batches("train", run.seed, 0)), Step.parse(self.pretrain)
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
        batches = self._moved(first(task.batches("train", mixed(run.seed, 1), 0), self.convergence), task, model, run)

        def measured(forward: Forward) -> dict[str, Any]:
            with self._replay(task, model, (), forward, run) as network:
                return {"metric": mean_metric(task.metric, batches, network)}

        whole = run.once("whole", task, model, measured)["metric"]
        return Goal(whole, self.tolerance, tuple(batches), task.metric)

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
            draws = self._drawn(task, model, run, number)
            if self.by == "imitation":
                products = gram(model, sites, size, forward, (inputs for inputs, _ in next(draws)))
                with self._replay(task, model, sites, forward, run) as network:
                    return asdict(_imitating(products, picks, self.repeat, network, goal))
            with self._replay(task, model, sites, forward, run) as network:
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

    def _tuned(self, task: Task, model: nn.Module, run: Run, number: int, mask: Mask) -> float:
        """Train for a part of an epoch, another one for each layer; the epochs that this took."""
        steps = length_of(task.batches("train", run.seed, 0))
        length = round(self.tune * steps)
        if not length:
            return 0.0
        recipe = replace(
            task.recipe,
            epochs=number + 1,
            start=f"{(number + 1) * steps - length}it",
            optimizer="sgd",
            lr=self.tune_lr,
            momentum=0.0,
            nesterov=False,
            schedule="constant",
            warmup=0.0,
        )
        run.stage(f"tune-{number:02d}", task, model, recipe=recipe, attached=mask)
        return length / steps

    def _drawn(self, task: Task, model: nn.Module, run: Run, number: int) -> Generator[list[Batch]]:
        for batches in drawn(task, mixed(run.seed, 3, number), self.samples):
            yield self._moved(batches, task, model, run)

    def _moved(self, batches: Iterable[Batch], task: Task, model: nn.Module, run: Run) -> list[Batch]:
        layout = task.recipe.wants_channels_last(model)
        return [move(batch, run.device, layout) for batch in batches]

    @contextmanager
    def _replay(
        self, task: Task, model: nn.Module, sites: tuple[Site, ...], forward: Forward, run: Run
    ) -> Generator[PrefixCache]:
        """The network to try, in the precision of training; losses and metrics are taken in it too."""
        with autocast(task.recipe, run.device), PrefixCache(model, sites, forward).ready() as network:
            yield network


def _imitating(products: Tensor, picks: int, repeat: bool, network: PrefixCache, goal: Goal | None) -> ChannelPicks:
    """The last pick's factors, or with a goal those of the fewest picks that meet it, sought by halving."""
    _, steps, errors = imitation_weights(products, picks, repeat)
    if goal is None:
        return ChannelPicks(steps[-1], errors[-1], True)
    low, high = 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if goal.met(network, steps[middle]) else (middle + 1, high)
    at = min(low, len(steps) - 1)
    return ChannelPicks(steps[at], errors[at], low < len(steps))
