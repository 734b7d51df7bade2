"""Concrete Ticket Search: the probability that each weight is kept, learned against a dense teacher."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.masked_model import MaskedModel, MaskedTask, check_length, positive, score_recipe
from tombola.methods.protocol import DensityKind
from tombola.scores import Batch
from tombola.structure import Granularity, Prunable, Weights
from tombola.tickets import Provenance, Seed, Ticket, select
from tombola.training import Cost, Observer, Run, SampleFlops, State, Task


@dataclass(frozen=True)
class ConcreteTicketSearch:
    """Learn each weight's probability of being kept over frozen initial weights, and keep the most probable.

    After Concrete Ticket Search (arXiv 2512.07142), of which the abstract was at hand: binary-concrete masks
    σ((α + logistic noise) / temperature); the expected density led from one half to `density` by a gradient on it that
    is balanced against the loss's own (of equal norm while the density is a tenth too high); the reverse KL divergence
    from a dense teacher, whose training is in the cost, as loss. objective: `task` searches with the task's own loss
    and without teacher. lr: of α, by Adam. length: epochs of the search over the recipe's.
    """

    density: float = 0.05
    objective: Literal["reverse-kl", "task"] = "reverse-kl"
    temperature: float = 0.5
    lr: float = 0.1
    length: float = 1.0
    prunable: Prunable = Prunable()

    granularity: ClassVar[Granularity] = Weights()
    density_kind: ClassVar[DensityKind] = "exact"

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.temperature > 0:
            raise TombolaError(f"the temperature is {self.temperature}; give a number above 0, as 0.5")
        check_length(self.length)

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed)
        start = Seed.of(model, run.seed)
        concrete = Concrete(self.temperature)
        searched = MaskedModel(task, copy.deepcopy(model), self.prunable, torch.zeros_like, concrete)
        searched.check_density(self.density, 1)
        searched.to(run.device)
        searching = MaskedTask(task)
        if self.objective == "reverse-kl":
            teacher = model.to(run.device)
            run.stage("teacher", task, teacher)
            searching = TeacherTask(task, teacher.eval())
        recipe = score_recipe(task.recipe, self.length, "adam", self.lr)
        done = run.stage("search", searching, searched, recipe=recipe, observers=[Balance(self, searched)])
        if self.objective == "reverse-kl":
            run.cost += asking(searching, teacher, searched, done.cost, next(iter(task.batches("train", run.seed, 0))))
        mask = select(searched.named_scores, self.density, floor=1)
        searched.settle(mask)
        before = run.validate(MaskedTask(task), searched, recipe)
        return Ticket(mask, start, provenance=Provenance(before=before))


class Concrete:
    """weight · z: z drawn from the binary concrete distribution while gradients are wanted, else [α > 0]."""

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def __call__(self, scores: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
        pairs = zip(scores, weights, strict=True)
        if not torch.is_grad_enabled():
            return [weight * (score > 0) for score, weight in pairs]
        return [weight * torch.sigmoid((score + _logistic(score)) / self._temperature) for score, weight in pairs]


def _logistic(like: Tensor) -> Tensor:
    """Logistic noise: ln u − ln(1 − u)."""
    return torch.rand_like(like).clamp_(1e-6, 1 - 1e-6).logit_()


@dataclass(frozen=True)
class TeacherTask(MaskedTask):
    """A search whose loss is the reverse KL divergence from a teacher's outputs."""

    teacher: nn.Module

    def forward(self, model: nn.Module, inputs: Any, /) -> Any:
        outputs = model(inputs)
        if not torch.is_grad_enabled():
            return outputs
        if not (isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[1] > 1):
            raise TombolaError(
                "the reverse KL divergence needs outputs of shape (n, classes), which this model does not give; search "
                "with objective='task'"
            )
        if outputs.is_meta:
            return outputs, outputs
        with torch.no_grad():
            return outputs, self.task.forward(self.teacher, inputs)

    def loss(self, outputs: Any, targets: Any, /, **options: Any) -> Tensor:
        if not isinstance(outputs, tuple):
            return self.task.loss(outputs, targets, **options)
        own, taught = (F.log_softmax(logits.float(), -1) for logits in outputs)
        return F.kl_div(taught, own, reduction="batchmean", log_target=True)


def asking(searching: MaskedTask, teacher: nn.Module, searched: MaskedModel, search: Cost, batch: Batch) -> Cost:
    """What the teacher's forward passes cost in a search, beyond what the search's own cost has of them."""
    task = searching.task
    one = SampleFlops.measure(task, teacher, batch)
    both, alone = (SampleFlops.measure(own, searched, batch).training for own in (searching, MaskedTask(task)))
    return Cost(
        samples_forward=search.samples_backward,
        flops=round(search.samples_backward * (one.forward - (both - alone))),
        dense_epochs=search.dense_epochs * one.forward / one.training,
    )


class Balance(Observer):
    """Leads the expected density by a gradient whose norm is balanced against the loss's."""

    def __init__(self, own: ConcreteTicketSearch, searched: MaskedModel) -> None:
        self._own = own
        self._searched = searched

    def before_step(self, state: State) -> None:
        pairs = [(score.detach(), score.grad) for score in self._searched.scores if score.grad is not None]
        kept = [torch.sigmoid(score) for score, _ in pairs]
        slopes = [own * (1 - own) for own in kept]
        size = sum(own.numel() for own in kept)
        density = sum(float(own.sum()) for own in kept) / size
        target = self._target(state)
        push = min(1.0, max(-1.0, (density - target) / (0.1 * target)))
        loss_norm = math.sqrt(sum(float(gradient.square().sum()) for _, gradient in pairs))
        slope_norm = math.sqrt(sum(float(slope.square().sum()) for slope in slopes))
        for (_, gradient), slope in zip(pairs, slopes, strict=True):
            gradient.add_(slope, alpha=push * loss_norm / max(slope_norm, 1e-12))

    def epoch_end(self, state: State) -> None:
        kept = positive(self._searched.named_scores)
        state.history[-1] |= {"density": kept.density, "target": self._target(state)}

    def _target(self, state: State) -> float:
        """From one half to the density over the first three quarters of the search, by the same factor a step."""
        done = min(1.0, state.step / (0.75 * state.recipe.epochs * state.steps_per_epoch))
        return 0.5 * (self._own.density / 0.5) ** done
