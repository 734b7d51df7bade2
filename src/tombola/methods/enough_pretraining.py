"""How much pre-training is enough: greedy tickets drawn while a two-layer network trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.greedy_search import first
from tombola.methods.neuron_selection import check_picks
from tombola.methods.neuron_tickets import TwoLayerDraw, activations, ticket_of
from tombola.methods.own_loop import concerned, steps_of
from tombola.methods.saturation_curve import CurvePoint, EnoughFormula, Saturation, saturation
from tombola.registry import lower_is_better
from tombola.scores import Batch, Batches, Forward, Inputs, batch_size, forward, probe_of
from tombola.structure import Neurons, TwoLayerNetwork
from tombola.tickets import Optimizers, Ticket, device_of
from tombola.training import (
    Cost,
    Observer,
    Run,
    State,
    Step,
    Tally,
    Task,
    accuracy,
    flop_counter,
    metric_of,
    metric_text,
    own_randomness,
    train_samples,
)

Metric = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class EnoughPretraining:
    """Draw greedy tickets while a network of two linear layers trains, and say when that stopped paying.

    A ticket counts by its metric on the validation split, never on the test split. Pre-training was enough at the first
    ticket within `tolerance` of the best, by medians of three neighbouring tickets.

    Args:
        picks: how many neurons are picked for a ticket.
        repeat: whether a neuron may be picked again.
        examples: on how many of the first training examples neurons are picked.
        at: the optimizer steps after which a ticket is drawn, as "500it" or "2ep"; if there are none, first and growth
            decide.
        first: the step of the first ticket.
        growth: the factor from one ticket's step to the next's, above 1.
        tolerance: how much worse than the best a ticket's metric may be.
        patience: how many further tickets must be judged before pre-training counts as enough.
        stop: whether training stops then.
        formula: the paper's, told beside what was measured.

    Raises:
        TombolaError: if a setting is out of range.

    Examples:
        >>> rule = EnoughPretraining(first=10, growth=2.0)
        >>> rule.due(9, None, None), rule.due(10, None, None), rule.due(20, 10, None)
        (False, True, True)
    """

    picks: int = 100
    repeat: bool = True
    examples: int = 5000
    at: tuple[str, ...] = ()
    first: int = 16
    growth: float = 1.5
    tolerance: float = 0.01
    patience: int = 4
    stop: bool = True
    formula: EnoughFormula = field(default_factory=EnoughFormula)

    def __post_init__(self) -> None:
        check_fields(self)
        for name, least in (("picks", 1), ("examples", 1), ("first", 1), ("patience", 1), ("tolerance", 0)):
            if not getattr(self, name) >= least:
                raise TombolaError(f"{name} is {getattr(self, name)}; give at least {least}")
        if not self.growth > 1:
            raise TombolaError(f"growth is {self.growth}; give a factor above 1 from one ticket's step to the next's")
        for point in self.at:
            if not Step.parse(point).count:
                raise TombolaError(f"a ticket is asked for at '{point}'; give a step of training, from 1it on")

    def due(self, step: int, last: int | None, steps_per_epoch: int | None) -> bool:
        """Whether a ticket is drawn after a step.

        Args:
            step: optimizer steps so far.
            last: the step of the last ticket; None before the first.
            steps_per_epoch: None in a user's own loop, where epochs are not known.
        """
        if not self.at:
            return step >= (self.first if last is None else max(last + 1, round(last * self.growth)))
        points = [Step.parse(word) for word in self.at]
        if steps_per_epoch is None and any(point.unit == "ep" for point in points):
            raise TombolaError("in your own loop steps are counted, not epochs; write tickets' steps as '500it'")
        return any(step == point.iterations(steps_per_epoch or 1) for point in points)

    def watch(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        train: Batches,
        validation: Batches,
        *,
        forward: Forward = forward,
        metric: Metric = accuracy,
    ) -> EnoughWatch:
        """Watch your own training: stop when `watch.enough` is True.

        Args:
            model: the network that you train.
            optimizer: one that holds its parameters, or all of several in a list or a dictionary.
            train: batches whose first examples neurons are picked on; they are read once, now.
            validation: batches on which tickets are judged.
            forward: how to call the model on inputs.
            metric: a batch's mean, of outputs and targets; larger is better, unless its name is that of an error.
        """
        return EnoughWatch(self, model, optimizer, train, validation, forward, metric)


@dataclass(eq=False)
class PretrainingDraws(Observer):
    """The tickets that are drawn while a network trains; an observer of the loop.

    Args:
        own: when a ticket is drawn and how, and when pre-training is enough.
        layers: the two layers of the network.
        train: batches with the examples that neurons are picked on.
        validation: batches on which tickets are judged.
        forward: how to call the model on inputs.
        metric: a batch's mean, of outputs and targets; larger is better, unless its name is that of an error.
        examples: how many training examples there are in all, for the formula.
        curve: the draws so far.
        spent: what they cost.
    """

    own: EnoughPretraining
    layers: TwoLayerNetwork
    train: Sequence[Batch]
    validation: Batches
    forward: Forward
    metric: Metric
    examples: int
    curve: list[CurvePoint] = field(default_factory=list)
    spent: Cost = field(default_factory=Cost)

    @staticmethod
    def of(rule: EnoughPretraining, task: Task, run: Run, layers: TwoLayerNetwork) -> PretrainingDraws:
        """Prepare to draw from the network that a run trains."""
        train, validation = task.batches("train", run.seed, 0), task.batches("validation", 0, 0)
        return PretrainingDraws.among(rule, layers, train, validation, task.forward, metric_of(task))

    @staticmethod
    def among(
        rule: EnoughPretraining,
        layers: TwoLayerNetwork,
        train: Batches,
        validation: Batches,
        forward: Forward,
        metric: Metric,
    ) -> PretrainingDraws:
        """Prepare to draw on the first of these examples, which are read now: a training may read the same loader."""
        check_picks(rule.picks, layers.neurons, rule.repeat, f"'{layers.hidden}'")
        first_batches = tuple(first(train, rule.examples))
        return PretrainingDraws(rule, layers, first_batches, validation, forward, metric, train_samples(train))

    @property
    def drawing(self) -> TwoLayerDraw:
        """How each ticket is drawn."""
        return TwoLayerDraw(self.layers, self.own.picks, self.own.repeat, self.own.examples)

    @property
    def saturation(self) -> Saturation | None:
        """When tickets stopped getting better, as far as was seen; None before the first."""
        return saturation(self.curve, self.own.tolerance, self.own.patience, bool(lower_is_better(self.metric)))

    @property
    def enough(self) -> bool:
        """Whether pre-training was enough."""
        return self.saturation is not None and self.saturation.settled

    def look(self, model: nn.Module, step: int, steps_per_epoch: int | None = None) -> None:
        """Draw a ticket if one is due after this step; the model, its mode and the random state stay as they are."""
        if not self.own.due(step, self.curve[-1].step if self.curve else None, steps_per_epoch):
            return
        samples = 0

        def counting_forward(module: nn.Module, inputs: Inputs) -> Any:
            nonlocal samples
            samples += batch_size((inputs, None))
            return self.forward(module, inputs)

        with own_randomness(device_of(model), 0), flop_counter() as flops:
            picks = self.drawing.of(model, self.train, counting_forward)
            ticket, whole = self._metrics(model, picks.scales, counting_forward)
        self.curve.append(CurvePoint(step, ticket, whole, float(picks.losses[-1]), int((picks.counts > 0).sum())))
        self.spent += Cost(samples_forward=samples, flops=flops.get_total_flops())

    @torch.no_grad()
    def _metrics(self, model: nn.Module, scales: Tensor, call: Forward) -> tuple[float, float]:
        last, count = self.layers.last(model), 0
        tallies = [Tally(self.metric, last.weight.device) for _ in range(2)]
        for hidden, targets in activations(self.layers, model, self.validation, call):
            weights = last.weight * scales.to(last.weight.dtype), last.weight
            for tally, weight in zip(tallies, weights, strict=True):
                tally.add(F.linear(hidden, weight, last.bias), targets, len(hidden))
            count += len(hidden)
        if not count:
            raise TombolaError("there is no validation sample to judge tickets by; set some aside")
        ticket, whole = (tally.value(count) for tally in tallies)
        return ticket, whole

    @property
    def sentence(self) -> str:
        """What was measured, and what the formula says."""
        saturation, formula = self.saturation, self.own.formula.told(self.layers.inputs, self.examples, self.own.picks)
        if saturation is None:
            return f"No ticket has been drawn yet. {formula}"
        metric, best = (metric_text(self.metric, value, 1) for value in (saturation.metric, saturation.best))
        so_far = "stopped paying after" if saturation.settled else "may still pay: the best so far came by"
        return (
            f"More pre-training {so_far} {saturation.step:,} steps, where a ticket of {self.own.picks} picks has "
            f"{metric} (best {best}). {formula}"
        )

    def after_step(self, state: State) -> None:
        self.look(state.model, state.step, state.steps_per_epoch)

    def epoch_end(self, state: State) -> bool:
        return self.own.stop and self.enough

    def state_dict(self) -> dict[str, Any]:
        return {"curve": [asdict(point) for point in self.curve], "spent": asdict(self.spent)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.curve, self.spent = [CurvePoint(**point) for point in state["curve"]], Cost(**state["spent"])


class EnoughWatch:
    """Tickets drawn in a user's own loop, made by `EnoughPretraining.watch`; `detach()` ends it."""

    def __init__(
        self,
        rule: EnoughPretraining,
        model: nn.Module,
        optimizer: Optimizers,
        train: Batches,
        validation: Batches,
        forward: Forward,
        metric: Metric,
    ) -> None:
        rule.due(0, None, None)
        self._units = Neurons().units(model, probe_of(train, forward))
        with own_randomness(device_of(model), 0):
            self._draws = PretrainingDraws.among(rule, self._units.layers, train, validation, forward, metric)
        self._model, self._steps = model, 0
        self._stops = rule.stop
        *_, clock = steps_of(concerned(optimizer, model.parameters()))
        self._hook = clock.register_step_post_hook(self._after_step)

    def _after_step(self, *_: Any) -> None:
        self._steps += 1
        self._draws.look(self._model, self._steps)

    def epoch_end(self) -> bool:
        """Whether to stop after this epoch: pre-training is enough, and `stop` says so."""
        return self._stops and self.enough

    @property
    def enough(self) -> bool:
        """Whether more pre-training has stopped paying."""
        return self._draws.enough

    finished = enough

    @property
    def curve(self) -> tuple[CurvePoint, ...]:
        """The tickets drawn so far."""
        return tuple(self._draws.curve)

    @property
    def saturation(self) -> Saturation | None:
        """When tickets stopped getting better, as far as was seen; None before the first."""
        return self._draws.saturation

    @property
    def sentence(self) -> str:
        """What was measured, and what the formula says."""
        return self._draws.sentence

    @property
    def ticket(self) -> Ticket:
        """The ticket of now, with its scales folded into the outgoing weights; the epochs before it are unknown."""
        draws = self._draws
        with own_randomness(device_of(self._model), 0):
            picks = draws.drawing.of(self._model, draws.train, draws.forward)
        return ticket_of(self._model, self._units, picks.scales, 0.0)

    def detach(self) -> None:
        """Remove the hook from the optimizer."""
        self._hook.remove()

    def state_dict(self) -> dict[str, Any]:
        return {"draws": self._draws.state_dict(), "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if not isinstance(state, Mapping) or state.keys() != {"draws", "steps"}:
            raise TombolaError("this is not the state of a watch; give what watch.state_dict() gave")
        self._draws.load_state_dict(state["draws"])
        self._steps = state["steps"]
