"""Early-Bird tickets, WORM and network slimming: units drawn while the network trains."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.methods.mask_convergence import ConvergenceRule, MaskConvergence
from tombola.methods.protocol import DensityKind
from tombola.methods.score_freezing import SearchWarning
from tombola.scores import BatchNormScale, Forward, Inputs, Magnitude, forward, suited
from tombola.structure import Channels, ChannelUnits, Granularity, UnitMap, norm_units
from tombola.tickets import Mask, Provenance, Seed, Ticket, Values, attach, digest_of, parameters_of, tensors_of
from tombola.training import Run, Task, mixed


@dataclass(frozen=True)
class EarlyBird(ConvergenceRule):
    """Train until the units that a pruning would keep have settled, and draw the ticket there.

    granularity: channels, by the scales of batch norms; of transformers the single weights of queries and keys
    (`QueryKey`), heads or hidden neurons (`Inside`), by the size of their weights. weights: what the ticket trains
    from: the weights of that epoch, at that point of the schedule (`inherited`); the initialisation (`init`), or
    another (`fresh`), with the whole schedule. If the masks never settle, the ticket is drawn after the last epoch and
    trains its weights through the schedule again.
    """

    granularity: Granularity = Channels()
    weights: Literal["inherited", "init", "fresh"] = "inherited"

    density_kind: ClassVar[DensityKind] = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.granularity.check(self.density, self.scope)
        if self.penalty and not isinstance(self.granularity, Channels):
            raise TombolaError(
                f"the penalty acts on batch norms' scales, which units of kind {self.granularity.name} do not have; "
                "give penalty=0"
            )

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed)
        initial = digest_of(tensors_of(model))
        model.to(run.device)
        units = self.granularity.units(model, run.probe(task))
        settling = watching(self, model, units)
        done = run.stage("search", task, model, observers=[settling])
        if not settling.settled and self.epsilon:
            warnings.warn(
                f"the masks did not settle in {len(done.history)} epochs (the last distance is "
                f"{max(settling.distances, default=1.0):.2g}, {self.epsilon:g} is wanted), so the ticket is drawn "
                "after the last; train longer, or give a larger epsilon",
                SearchWarning,
                stacklevel=2,
            )
        mask, removed = drawn(settling, model, units)
        cut = copy.deepcopy(model)
        attach(mask, cut).detach()
        seen = Provenance(whole=done.validation, before=run.validate(task, cut, task.recipe))
        if self.weights != "inherited":
            seed = run.seed if self.weights == "init" else mixed(run.seed, 1)
            start = Seed(seed, initial if self.weights == "init" else digest_of(tensors_of(task.build(seed))))
            return Ticket(mask, start, removed=removed, provenance=seen)
        spent = len(done.history)
        if settling.settled and spent < task.recipe.epochs:
            point = f"{spent}ep"
            start = Values(tensors_of(model), point, spent)
            return Ticket(mask, start, recipe={"start": point}, removed=removed, provenance=seen)
        return Ticket(mask, Values(tensors_of(model), "end", spent), removed=removed, provenance=seen)

    def watch(
        self, model: nn.Module, optimizer: Optimizer, example: Inputs | None = None, forward: Forward = forward
    ) -> Watch:
        """Watch your own training: call `epoch_end()` after each epoch, and stop when it is True.

        example: inputs on which the network can be called; with them a ticket of channels covers them whole, without
        only the γ and β of their norms, from which `tb.shrink` finds the rest.
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
    """A search in a user's own loop, carried by hooks of the optimizer alone; `detach()` removes them."""

    def __init__(
        self,
        method: EarlyBird,
        model: nn.Module,
        optimizer: Optimizer,
        example: Inputs | None = None,
        forward: Forward = forward,
    ) -> None:
        held = {p for group in optimizer.param_groups for p in group["params"]}
        traced = isinstance(method.granularity, Channels)
        self._units = None
        if example is not None or not traced:
            self._units = method.granularity.units(model, lambda own: forward(own, suited(example, own)))
        self._settling = watching(method, model, self._units)
        named = parameters_of(model)
        missing = [name for name in self._settling.names if named[name] not in held and named[name].requires_grad]
        if missing:
            raise TombolaError(
                f"the optimizer does not hold '{missing[0]}' of this model; make it from model.parameters()"
            )
        self._model, self._optimizer, self._epochs = model, optimizer, 0
        self._hook = optimizer.register_step_pre_hook(self._before_step)

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
        if closure is None:
            scale = getattr(optimizer, "grad_scale", None)
            self._settling.shape_gradients(1.0 if scale is None else scale)
            return None

        def shaped() -> Any:
            loss = closure()
            self._settling.shape_gradients()
            return loss

        return args[:1], {**kwargs, "closure": shaped}

    def epoch_end(self) -> bool:
        """Look at the masks after an epoch; True when they have settled."""
        self._epochs += 1
        return self._settling.look(self._optimizer)

    @property
    def distance(self) -> float:
        """The largest of the distances between the last masks; 1 before there are enough of them."""
        return max(self._settling.distances) if self._settling.full else 1.0

    @property
    def ticket(self) -> Ticket:
        """The channels that would be kept now, on the weights of now."""
        mask, removed = drawn(self._settling, self._model, self._units)
        return Ticket(mask, Values(tensors_of(self._model), f"{self._epochs}ep", self._epochs), removed=removed)

    def detach(self) -> None:
        self._hook.remove()

    def state_dict(self) -> dict[str, Any]:
        return {"settling": self._settling.state_dict(), "epochs": self._epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if not isinstance(state, Mapping) or state.keys() != {"settling", "epochs"}:
            raise TombolaError("this is not the state of a watch; give what watch.state_dict() gave")
        self._settling.load_state_dict(state["settling"])
        self._epochs = state["epochs"]


def watching(method: EarlyBird, model: nn.Module, units: UnitMap | None) -> MaskConvergence:
    """What to watch of a network for these units; None stands for channels that were not traced."""
    if units is None or isinstance(units, ChannelUnits):
        return MaskConvergence(method, model, norm_units(model, units.output_norms if units else ()), BatchNormScale())
    return MaskConvergence(method, model, units, Magnitude())


def drawn(
    settling: MaskConvergence, model: nn.Module, units: UnitMap | None
) -> tuple[Mask, dict[str, tuple[int, ...]]]:
    """The newest mask and the units that it removes; that of norms as one of whole channels, as far as was traced."""
    if units is None:
        return settling.mask, {}
    if not isinstance(units, ChannelUnits):
        return settling.mask, units.removed(settling.kept)
    norms, kept = settling.mask, units.of_norms(settling.kept)
    whole = units.expand(kept, tensors_of(model))
    both = {name: whole[name] & norms[name] if name in norms else whole[name] for name in whole}
    alone = {name: norms[name] for name in norms if name not in whole}
    return Mask.of(both | alone, settling.kept.ties), units.removed(kept)
