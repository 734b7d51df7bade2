"""Early-Bird tickets, WORM and network slimming: units drawn while the network trains."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

from torch import nn

from tombola.errors import TombolaError
from tombola.methods.mask_convergence import ConvergenceRule, MaskConvergence
from tombola.methods.own_loop import before_each_step, probe_on
from tombola.methods.protocol import DensityKind
from tombola.methods.score_freezing import SearchWarning
from tombola.scores import BatchNormScale, Forward, Inputs, Magnitude, forward
from tombola.structure import (
    ChannelUnits,
    CoupledNorms,
    CoupledUnits,
    Granularity,
    Probe,
    SeparateChannels,
    UnitMap,
    check_granularity,
    norm_units,
)
from tombola.tickets import (
    Mask,
    Optimizers,
    Provenance,
    Seed,
    Ticket,
    Values,
    attach,
    digest_of,
    parameters_of,
    steppers_of,
    tensors_of,
)
from tombola.training import Run, Task, mixed


@dataclass(frozen=True)
class EarlyBird(ConvergenceRule):
    """Train until the units that a pruning would keep have settled, and draw the ticket there.

    You et al., Drawing Early-Bird Tickets, ICLR 2020; of transformers Chen et al., EarlyBERT, ACL 2021. If the masks
    never settle, the ticket is drawn after the last epoch and trains its weights through the schedule again. The
    settings of `ConvergenceRule` say when masks have settled.

    Args:
        granularity: channels, ranked by the scales of batch norms: each norm's by themselves, as in the paper, or with
            `tombola.Channels` those that can only be cut together as one; of transformers the single weights of queries
            and keys (`query-key`), heads or hidden neurons (`PartUnits`), ranked by the size of their weights.
        weights: what the ticket trains from: the weights of that epoch, at that point of the schedule (`inherited`);
            the initialisation (`init`), or another one (`fresh`), with the whole schedule.

    Raises:
        TombolaError: if a setting is out of range, or a penalty is asked of units without batch-norm scales.

    Examples:
        >>> EarlyBird(density=0.3, window=3, weights="init").epsilon
        0.1
    """

    granularity: Granularity = field(default_factory=SeparateChannels)
    weights: Literal["inherited", "init", "fresh"] = "inherited"

    density_kind: ClassVar[DensityKind] = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_granularity(self.granularity, self.density, self.scope)
        if self.penalty and not isinstance(self.granularity, SeparateChannels):
            raise TombolaError(
                f"the penalty acts on batch norms' scales, which units of kind {self.granularity.name} do not have; "
                "give penalty=0"
            )

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed)
        initial = digest_of(tensors_of(model))
        model.to(run.device)
        units = run.units(self.granularity, task, model)
        convergence = watching(self, model, units)
        fit = run.stage("search", task, model, observers=[convergence])
        if not convergence.settled and self.epsilon:
            warnings.warn(
                f"the masks did not settle in {len(fit.history)} epochs (the last distance is "
                f"{max(convergence.distances, default=1.0):.2g}, {self.epsilon:g} is wanted), so the ticket is drawn "
                "after the last; train longer, or give a larger epsilon",
                SearchWarning,
                stacklevel=2,
            )
        mask, removed = drawn(convergence, model, units)
        pruned = copy.deepcopy(model)  # A copy, since the ticket keeps the values of removed weights, for controls.
        attach(mask, pruned).detach()  # Attaching zeroes the removed weights.
        provenance = Provenance(whole=fit.validation, before=run.validate(task, pruned, task.recipe))
        if self.weights != "inherited":
            seed = run.seed if self.weights == "init" else mixed(run.seed, 1)
            start = Seed(seed, initial if self.weights == "init" else digest_of(tensors_of(task.build(seed))))
            return Ticket(mask, start, removed=removed, provenance=provenance)
        spent = len(fit.history)
        if convergence.settled and spent < task.recipe.epochs:
            stopped_at = f"{spent}ep"
            start = Values(tensors_of(model), stopped_at, spent)
            return Ticket(mask, start, recipe={"start": stopped_at}, removed=removed, provenance=provenance)
        return Ticket(mask, Values(tensors_of(model), "end", spent), removed=removed, provenance=provenance)

    def rehearse(self, model: nn.Module, units: UnitMap, probe: Probe) -> Mask:
        """The mask that would be drawn of a network as it is now."""
        return drawn(watching(replace(self, untrained=True), model, units), model, units)[0]

    def watch(
        self, model: nn.Module, optimizer: Optimizers, example: Inputs | None = None, forward: Forward = forward
    ) -> Watch:
        """Watch your own training: call `epoch_end()` after each epoch, and stop when it is True.

        Args:
            model: the network that you train.
            optimizer: one that holds its parameters, or all of several in a list or a dictionary.
            example: inputs on which the network can be called. With them, a ticket of channels covers whole channels;
                without them, only the γ and β of their norms, from which `tb.shrink` finds the rest.
            forward: how to call the model on inputs.

        Examples:
            >>> import torch
            >>> from torch import nn
            >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 2))
            >>> images, classes = torch.randn(8, 1, 5, 5), torch.arange(8) % 2
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> watch = EarlyBird(density=0.5, window=2).watch(model, optimizer, images)
            >>> for epoch in range(20):
            ...     optimizer.zero_grad()
            ...     nn.functional.cross_entropy(model(images), classes).backward()
            ...     _ = optimizer.step()
            ...     if watch.epoch_end():
            ...         break
            >>> watch.ticket.mask.counts["1.weight"]
            2
        """
        return Watch(self, model, optimizer, example, forward)


@dataclass(frozen=True)
class Worm(EarlyBird):
    """Early-Bird that, once the masks have nearly settled, lets the units to be dropped hardly learn any more."""

    truncation: float = 3e-3


@dataclass(frozen=True)
class Slimming(EarlyBird):
    """Train to the end with a penalty on the norms' scales, draw the ticket there, and train its weights again."""

    epsilon: float = 0.0
    penalty: float = 1e-4


class Watch:
    """A search in a user's own loop, made by `EarlyBird.watch`; `detach()` removes its only hooks, on optimizers."""

    def __init__(
        self,
        method: EarlyBird,
        model: nn.Module,
        optimizer: Optimizers,
        example: Inputs | None = None,
        forward: Forward = forward,
    ) -> None:
        steppers = steppers_of(optimizer)
        optimized = {parameter for stepper in steppers for parameter in stepper.parameters}
        by_channels = isinstance(method.granularity, SeparateChannels)
        self._units = None
        if example is not None or not by_channels:
            self._units = method.granularity.units(model, probe_on(example, forward))
        self._convergence = watching(method, model, self._units)
        parameters = parameters_of(model)
        watched = {name: parameters[name] for name in self._convergence.names}
        missing = [name for name, p in watched.items() if p not in optimized and p.requires_grad]
        if missing:
            raise TombolaError(
                f"the optimizer does not hold '{missing[0]}' of this model; make it from model.parameters()"
            )
        self._model, self._epochs = model, 0
        self._optimizers = list(dict.fromkeys(own for stepper in steppers for own in stepper.inner))
        self._removers = [
            before_each_step(own, partial(self._convergence.shape_gradients, of=own)) for own in self._optimizers
        ]

    def epoch_end(self) -> bool:
        """Look at the masks after an epoch; True when they have settled."""
        self._epochs += 1
        return self._convergence.look(*self._optimizers)

    @property
    def finished(self) -> bool:
        """Whether the masks have settled, or need not (epsilon 0)."""
        return self._convergence.settled or not self._convergence.settings.epsilon

    @property
    def distance(self) -> float:
        """The largest of the distances between the last masks; 1 before there are enough of them."""
        return max(self._convergence.distances) if self._convergence.full else 1.0

    @property
    def ticket(self) -> Ticket:
        """The units that would be kept now, on the weights of now."""
        mask, removed = drawn(self._convergence, self._model, self._units)
        return Ticket(mask, Values(tensors_of(self._model), f"{self._epochs}ep", self._epochs), removed=removed)

    def detach(self) -> None:
        """Remove the hooks from the optimizers."""
        while self._removers:
            self._removers.pop()()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs, to go on with the search."""
        return {"settling": self._convergence.state_dict(), "epochs": self._epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict()` gave; TombolaError if it is of something else."""
        if not isinstance(state, Mapping) or state.keys() != {"settling", "epochs"}:
            raise TombolaError("this is not the state of a watch; give what watch.state_dict() gave")
        self._convergence.load_state_dict(state["settling"])
        self._epochs = state["epochs"]


def watching(method: EarlyBird, model: nn.Module, units: UnitMap | None) -> MaskConvergence:
    """Watch these units of a network; None stands for channels that were not traced."""
    if units is None or isinstance(units, ChannelUnits):
        norms = norm_units(model, units.output_norms if units else ())
        if isinstance(units, CoupledUnits):
            norms = CoupledNorms(norms.groups, channels=units)
        return MaskConvergence(method, model, norms, BatchNormScale())
    return MaskConvergence(method, model, units, Magnitude())


def drawn(
    convergence: MaskConvergence, model: nn.Module, units: UnitMap | None
) -> tuple[Mask, dict[str, tuple[int, ...]]]:
    """The newest mask, and the units that it removes.

    For channels, the mask of whole channels is joined with that of norms, as far as the network was traced.
    """
    if units is None:
        return convergence.mask, {}
    if not isinstance(units, ChannelUnits):
        return convergence.mask, units.removed(convergence.kept)
    norms, kept = convergence.mask, units.of_norms(convergence.kept)
    channels = units.expand(kept, tensors_of(model))
    both = {name: channels[name] & norms[name] if name in norms else channels[name] for name in channels}
    norms_only = {name: norms[name] for name in norms if name not in channels}
    return Mask.of(both | norms_only, convergence.kept.ties), units.removed(kept)
