"""Concrete Ticket Search: how likely each weight is kept, learned over frozen weights."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.concrete_model import ConcreteModel
from tombola.methods.concrete_objectives import (
    DIFFERENTIATES,
    OF_CLASSES,
    WATCHES_FEATURES,
    WITHOUT_TEACHER,
    Both,
    Objective,
    measured,
    probabilities,
)
from tombola.methods.masked_model import MaskedTask, check_length, positive, score_recipe
from tombola.methods.protocol import DensityKind
from tombola.methods.rewinding import REWINDS, prescribed
from tombola.scores import Forward, suited
from tombola.structure import Granularity, Prunable, Weights, in_mode
from tombola.tickets import Provenance, Seed, Ticket, Values, as_density, put_values, recomputable, select
from tombola.training import (
    Cost,
    Fit,
    Observer,
    Recipe,
    Run,
    SampleFlops,
    Snapshot,
    State,
    Step,
    Task,
    Until,
    first_of,
    length_of,
    with_recipe,
)


@dataclass(frozen=True)
class ConcreteTicketSearch:
    """Learn a logit φ for each weight over frozen weights, under a bound on Σ σ(φ), and keep the highest.

    Arora & Teuscher, Concrete Ticket Search, arXiv 2512.07142, as their code does it. Each step draws a mask z = σ(φ +
    logit(u) / τ) of each weight and compares the masked network with the same network without a mask, which is its
    teacher. All φ start at the logit of the density.

    Args:
        density: the share of weights to keep, above 0 and below 1.
        objective: what a step minimises: the divergence of the masked network's outputs from the teacher's
            (`reverse-kl`) or the other way round (`kl`); the task's loss (`loss`), or how far it is from the teacher's
            (`loss-ratio`); the negative norm of the loss's gradient (`gradient-norm`); the distance of standardised
            gradients (`gradient-match`), or of standardised ReLUs and probabilities (`feature-match`).
        control: how Σ σ(φ) is held: by a gradient as long as the objective's while there are too many (`balance`), or
            by a multiplier that rises with the excess (`multiplier`).
        slack: how far above the density the balance lets Σ σ(φ) go, as a share of the density.
        average: how much of the balance each step keeps.
        ascent: the multiplier's learning rate, as a share of that of φ.
        temperature: τ, above 0.
        counted: what is summed: σ(φ) as the authors do (`logit`), or σ(τφ), how likely z is above ½ (`mask`).
        lr: the learning rate of φ, which Adam trains; a tenth of it for the last eighth of the search.
        length: the epochs of the search, as a multiple of the recipe's: 1 is the authors' long search, 0.5 their half
            and 0.125 their short one.
        rewind: where the search takes place and the ticket trains from: `init`, or a step, as "500it" or "9ep".
        draw: which weights are kept: the highest φ up to the density (`top`), those above 0 (`positive`), or the lowest
            up to the density, as a control (`lowest`).
        floor: weights that each layer keeps at least.
        prunable: which parameters may be pruned.

    Raises:
        TombolaError: if a setting is out of range.

    Examples:
        >>> ConcreteTicketSearch(density=0.01, length=0.125, rewind="9ep").density_kind
        'exact'
    """

    density: float = 0.01
    objective: Objective = "reverse-kl"
    control: Literal["balance", "multiplier"] = "balance"
    slack: float = 0.1
    average: float = 0.99
    ascent: float = 0.01
    temperature: float = 2 / 3
    counted: Literal["logit", "mask"] = "logit"
    lr: float = 0.1
    length: float = 1.0
    rewind: str = "init"
    draw: Literal["top", "positive", "lowest"] = "top"
    floor: int = 0
    prunable: Prunable = Prunable()

    granularity: ClassVar[Granularity] = Weights()

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.temperature > 0:
            raise TombolaError(f"the temperature is {self.temperature}; give a number above 0, as 0.5")
        if as_density(self.density, "weights") == 1:
            raise TombolaError("a density of 1 leaves nothing to search; give one below 1, as 0.01")
        for name, most in (("slack", math.inf), ("average", 1.0), ("ascent", math.inf), ("floor", math.inf)):
            if not 0 <= getattr(self, name) <= most:
                limits = "at least 0" if most == math.inf else f"from 0 to {most:g}"
                raise TombolaError(f"{name} is {getattr(self, name)}; give a number {limits}")
        if self.rewind != "init" and self.rewind in REWINDS:
            raise TombolaError(f"rewind is '{self.rewind}'; a search over frozen weights takes init or a step, as 9ep")
        if self.rewind != "init":
            Step.parse(self.rewind)
        check_length(self.length)

    @property
    def density_kind(self) -> DensityKind:
        """Found where all φ above 0 are kept, else exact."""
        return "outcome" if self.draw == "positive" else "exact"

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed)
        start: Seed | Values = Seed.of(model, run.seed)
        model.to(run.device)
        if self.objective in OF_CLASSES:  # before anything trains
            run.once("outputs", task, model, lambda forward: _look_at_outputs(task, model, forward, run.seed))
        if self.rewind != "init":
            start = self._trained(task, model, run)
        searched, control = self.prepare(task, copy.deepcopy(model))
        searched.to(run.device)
        recipe = self.search_recipe(task.recipe)
        plain = with_recipe(task, replace(task.recipe, augment=())) if task.recipe.augment else task
        searching = ConcreteTask(plain, self.objective)
        fit = run.stage("search", searching, searched, recipe=recipe, observers=[control])
        if self.objective != "loss":
            run.cost += objective_cost(searching, searched, fit, run)
        searched.forget_threshold()
        scores = searched.named_scores
        if self.draw == "positive":
            mask = positive(scores)
        else:
            ranked = {name: -score for name, score in scores.items()} if self.draw == "lowest" else scores
            mask = select(ranked, self.density, floor=self.floor)
        searched.settle(mask)
        before = run.validate(MaskedTask(searching.task), searched, recipe)
        return Ticket(mask, start, recipe=prescribed(self.rewind, task.recipe), provenance=Provenance(before=before))

    def search_recipe(self, recipe: Recipe) -> Recipe:
        """How φ trains on a task with this recipe: by Adam, at a rate that falls once."""
        searching = replace(score_recipe(recipe, self.length, "adam", self.lr), schedule="multistep", augment=())
        epochs = searching.epochs
        # The authors' rate falls after epoch int(0.88 · epochs) − 1; a search of a few epochs has no epoch to spare.
        drop = (int(0.88 * epochs) - 1) / epochs if epochs >= 10 else 0.88
        return replace(searching, milestones=(drop,), gamma=0.1)

    def _trained(self, task: Task, model: nn.Module, run: Run) -> Values:
        """Train the dense network to the step at which the search begins; it keeps the values of that step."""
        at = Step.parse(self.rewind)
        steps = task.recipe.steps(length_of(task.batches("train", run.seed, 0)))
        if at.iterations(steps) > task.recipe.epochs * steps:
            ends = f"{task.recipe.epochs}ep"
            raise TombolaError(f"rewind is {self.rewind}, and training ends at {ends}; give an earlier step")
        snapshot = Snapshot(at)
        until = Until(math.ceil(at.iterations(steps) / steps))
        run.stage("dense", task, model, observers=[snapshot, until])
        put_values(model, snapshot.taken)
        return Values(snapshot.taken, self.rewind, snapshot.epochs_spent)

    def prepare(self, task: Task, model: nn.Module) -> tuple[ConcreteModel, DensityControl]:
        """The model with its first logits, and the observer that holds the density.

        Args:
            task: says how the model is called.
            model: the network to search; its parameters become frozen.
        """
        size = sum(weight.numel() for weight in self.prunable(model).values())
        logit = math.log(self.density / (1 - self.density)) / (self.temperature if self.counted == "mask" else 1)
        count = max(1, round(self.density * size))
        searched = ConcreteModel(task, model, self.prunable, logit, self.temperature, count)
        searched.check_density(self.density, self.floor)
        return searched, DensityControl(self, searched)


@dataclass(frozen=True)
class ConcreteTask(MaskedTask):
    """A search whose loss compares the masked network with the dense one."""

    objective: Objective = "reverse-kl"

    def forward(self, model: nn.Module, inputs: Any, /) -> Any:
        if not torch.is_grad_enabled():
            return model(inputs)
        assert isinstance(model, ConcreteModel)
        wanted = {"features": self.objective in WATCHES_FEATURES, "differentiable": self.objective in DIFFERENTIATES}
        own = model.weights
        # The dense network first: what backward computes again is of the last call.
        dense = None if self.objective in WITHOUT_TEACHER else model.dense(inputs, own, **wanted)
        return Both(model.masked(inputs, own, **wanted), dense)

    def loss(self, outputs: Any, targets: Any, /, **options: Any) -> Tensor:
        if not isinstance(outputs, Both):
            return self.task.loss(outputs, targets, **options)
        return measured(
            self.objective, outputs, targets, lambda given, wanted: self.task.loss(given, wanted, **options)
        )


def _look_at_outputs(task: Task, model: nn.Module, forward: Forward, seed: int) -> dict[str, Any]:
    """TombolaError unless the network gives the logits of classes."""
    inputs, _ = first_of(task.batches("train", seed, 0))
    with in_mode(model, "eval"), torch.no_grad(), recomputable():
        probabilities(forward(model, suited(inputs, model)))
    return {}


def objective_cost(searching: ConcreteTask, searched: ConcreteModel, search: Fit, run: Run) -> Cost:
    """What the teacher's passes and second derivatives add to the samples and dense epochs of a search.

    Its FLOPs hold them already.
    """
    batch = first_of(searching.batches("train", run.seed, 0))
    both = SampleFlops.measure(searching, searched, batch).training
    alone = SampleFlops.measure(replace(searching, objective="loss"), searched, batch).training
    cost = search.cost
    taught = 0 if searching.objective in WITHOUT_TEACHER else cost.samples_backward
    return Cost(samples_forward=taught, dense_epochs=cost.dense_epochs * (both - alone) / alone)


class DensityControl(Observer):
    """Holds Σ σ(φ) at the density by a gradient beside the objective's (GradBalance, or a multiplier)."""

    def __init__(self, settings: ConcreteTicketSearch, searched: ConcreteModel) -> None:
        self._settings, self._searched = settings, searched
        self._weight: Tensor | None = None
        self._shares: list[Tensor] = []

    @torch.no_grad()
    def before_step(self, state: State) -> None:
        settings, logits = self._settings, list(self._searched.scores)
        # A weight that the outputs do not depend on has no gradient, but counts.
        gradients = [torch.zeros_like(logit) if logit.grad is None else logit.grad for logit in logits]
        scale = settings.temperature if settings.counted == "mask" else 1.0
        if not self._shares:
            self._shares = [torch.empty_like(logit) for logit in logits]
        # Into the same memory each step: new memory would take longer than the arithmetic.
        pairs = zip(self._shares, logits, strict=True)
        kept = [torch.mul(logit, scale, out=share).sigmoid_() for share, logit in pairs]
        allowed = settings.density * sum(logit.numel() for logit in logits)
        allowed *= 1 + settings.slack if settings.control == "balance" else 1
        excess = 100 * (torch.stack([share.sum() for share in kept]).sum() / allowed - 1)
        # ∂ excess / ∂φ = 100 · scale · σ(1 − σ) / allowed
        slopes, steepness = [share.addcmul_(share, share, value=-1) for share in kept], 100 * scale / allowed
        if settings.control == "balance":
            lengths = [_norm(gradients), steepness * _norm(slopes)]
            wanted = torch.where(excess > 0, lengths[0] / (lengths[1] + 1e-12), torch.zeros_like(lengths[0]))
            # The first step's balance is taken as it is.
            self._weight = wanted if self._weight is None else self._weight.lerp(wanted, 1 - settings.average)
            weight = self._weight
        else:
            rate = state.recipe.lr_at(state.step, state.steps_per_epoch) * settings.ascent
            if settings.objective == "feature-match":
                rate /= 10
            weight = torch.zeros_like(excess) if self._weight is None else self._weight
            self._weight = (weight + rate * excess).clamp(min=0)
        for gradient, slope in zip(gradients, slopes, strict=True):
            gradient.addcmul_(slope, (steepness * weight).to(slope.dtype))

    def after_step(self, state: State) -> None:
        self._searched.forget_threshold()

    def epoch_end(self, state: State) -> None:
        logits = self._searched.named_scores.values()
        size = sum(logit.numel() for logit in logits)
        expected = sum(float(torch.sigmoid(logit).sum()) for logit in logits) / size
        above = sum(int((logit > 0).sum()) for logit in logits) / size
        balance = 0.0 if self._weight is None else float(self._weight)
        state.history[-1] |= {"density": expected, "above_half": above, "balance": balance}

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self._weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._weight = state["weight"]


def _norm(tensors: list[Tensor]) -> Tensor:
    return torch.stack([tensor.norm() for tensor in tensors]).norm()
