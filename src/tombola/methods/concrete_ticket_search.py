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
from tombola.training import Cost, Observer, Run, SampleFlops, State, Task, first_of


@dataclass(frozen=True)
class ConcreteTicketSearch:
    """Learn each weight's probability of being kept over frozen initial weights, and keep the most probable.

    After the abstract of Concrete Ticket Search (arXiv 2512.07142), the only part of it that was at hand. Masks are
    binary concrete: σ((α + logistic noise) / temperature). A gradient on the expected density leads it from one half to
    `density`; while the density is a tenth too high, this gradient has the norm of the loss's. The loss is the reverse
    KL divergence from a dense teacher, whose training counts as cost of the search.

    Args:
        density: the share of weights to keep, above 0 and at most 1.
        objective: the loss of the search: the divergence from the teacher (`reverse-kl`), or the task's own loss
            without a teacher (`task`).
        temperature: of the masks, above 0; lower makes them harder.
        lr: the learning rate of α, which Adam trains.
        length: the epochs of the search, as a multiple of the recipe's.
        prunable: which parameters may be pruned.

    Raises:
        TombolaError: if a setting is out of range.

    Examples:
        >>> ConcreteTicketSearch(density=0.02, objective="task").temperature
        0.5
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
        fit = run.stage("search", searching, searched, recipe=recipe, observers=[Balance(self, searched)])
        if self.objective == "reverse-kl":
            batch = first_of(task.batches("train", run.seed, 0))
            run.cost += teacher_cost(searching, teacher, searched, fit.cost, batch)
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
    """Logistic noise: ln u − ln(1 − u) for uniform u."""
    return torch.rand_like(like).clamp_(1e-6, 1 - 1e-6).logit_()  # Clamped, since logit of 0 and 1 is infinite.


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
        if outputs.is_meta:  # FLOPs are counted on the meta device, where the teacher is not; see `teacher_cost`.
            return outputs, outputs
        with torch.no_grad():
            return outputs, self.task.forward(self.teacher, inputs)

    def loss(self, outputs: Any, targets: Any, /, **options: Any) -> Tensor:
        if not isinstance(outputs, tuple):
            return self.task.loss(outputs, targets, **options)
        student, teacher = (F.log_softmax(logits.float(), -1) for logits in outputs)
        return F.kl_div(teacher, student, reduction="batchmean", log_target=True)  # KL(student ‖ teacher).


def teacher_cost(searching: MaskedTask, teacher: nn.Module, searched: MaskedModel, search: Cost, batch: Batch) -> Cost:
    """What the teacher's forward passes cost in a search, beyond the part that the search's own cost holds already."""
    task = searching.task
    teacher_flops = SampleFlops.measure(task, teacher, batch)
    with_teacher = SampleFlops.measure(searching, searched, batch).training
    without_teacher = SampleFlops.measure(MaskedTask(task), searched, batch).training
    return Cost(
        samples_forward=search.samples_backward,
        flops=round(search.samples_backward * (teacher_flops.forward - (with_teacher - without_teacher))),
        dense_epochs=search.dense_epochs * teacher_flops.forward / teacher_flops.training,
    )


class Balance(Observer):
    """Leads the expected density, by a gradient whose norm is balanced against that of the loss."""

    def __init__(self, settings: ConcreteTicketSearch, searched: MaskedModel) -> None:
        self._settings = settings
        self._searched = searched

    def before_step(self, state: State) -> None:
        pairs = [(score.detach(), score.grad) for score in self._searched.scores if score.grad is not None]
        probabilities = [torch.sigmoid(score) for score, _ in pairs]
        slopes = [probability * (1 - probability) for probability in probabilities]  # ∂σ(α)/∂α, of the density.
        size = sum(probability.numel() for probability in probabilities)
        sums = [probability.sum() for probability in probabilities]
        squares = [tensor.square().sum() for tensor in (*(gradient for _, gradient in pairs), *slopes)]
        # One transfer for all layers: each waits for the device.
        numbers, layers = torch.stack(sums + squares).tolist(), len(pairs)
        density, target = sum(numbers[:layers]) / size, self._target(state)
        push = min(1.0, max(-1.0, (density - target) / (0.1 * target)))
        loss_norm = math.sqrt(sum(numbers[layers : 2 * layers]))
        slope_norm = math.sqrt(sum(numbers[2 * layers :]))
        for (_, gradient), slope in zip(pairs, slopes, strict=True):
            gradient.add_(slope, alpha=push * loss_norm / max(slope_norm, 1e-12))

    def epoch_end(self, state: State) -> None:
        mask = positive(self._searched.named_scores)
        state.history[-1] |= {"density": mask.density, "target": self._target(state)}

    def _target(self, state: State) -> float:
        """The density aimed at, which falls from one half by the same factor a step for three quarters of the
        search.
        """
        progress = min(1.0, state.step / (0.75 * state.recipe.epochs * state.steps_per_epoch))
        return 0.5 * (self._settings.density / 0.5) ** progress
