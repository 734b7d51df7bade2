"""Continuous Sparsification: weights and a soft mask trained together until the mask is hard."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.masked_model import MaskedModel, MaskedTask, positive
from tombola.methods.protocol import DensityKind
from tombola.methods.score_freezing import SearchWarning
from tombola.structure import Granularity, Prunable, Weights
from tombola.tickets import Mask, Provenance, Ticket, Values, put_values, select
from tombola.training import Observer, Run, Snapshot, State, Step, Task


@dataclass(frozen=True)
class ContinuousSparsification:
    """Train weights under the mask σ(β·s) while β grows from 1 to `heat`, and keep what ends with s > 0.

    Savarese, Silva & Maire, NeurIPS 2020. Training decides how many weights are kept; if they are more than the density
    allows, those with the lowest s go too.

    Args:
        density: the largest share of weights to keep, above 0 and at most 1.
        start: the first value of every s; lower gives sparser tickets.
        penalty: the factor on the sum of the mask, which is added to the loss.
        heat: the value of β in the last epoch of a round.
        rounds: how many times β grows; between two rounds s becomes min(β·s, start).
        rewind: the step of the first round, as "500it" or "1ep", from whose weights the ticket trains; they are divided
            by σ(start), as they were in the search.
        prunable: which parameters may be pruned.

    Raises:
        TombolaError: if a setting is out of range.

    Examples:
        >>> ContinuousSparsification(start=-0.1, rounds=5).density_kind
        'bound'
    """

    density: float = 0.05
    start: float = 0.0
    penalty: float = 1e-8
    heat: float = 200.0
    rounds: int = 3
    rewind: str = "1ep"
    prunable: Prunable = Prunable()

    granularity: ClassVar[Granularity] = Weights()
    density_kind: ClassVar[DensityKind] = "bound"

    def __post_init__(self) -> None:
        check_fields(self)
        Step.parse(self.rewind)
        if self.rounds < 1:
            raise TombolaError(f"rounds is {self.rounds}; give at least 1")

    def find(self, task: Task, run: Run) -> Ticket:
        _check_optimizer(task)
        model = task.build(run.seed)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        soft = SoftMask(1 / sigmoid(self.start))
        searched = MaskedModel(task, model, self.prunable, lambda weight: torch.full_like(weight, self.start), soft)
        searched.check_density(self.density, 1)
        for parameter in trained:  # MaskedModel froze the weights, but here they train together with the scores.
            parameter.requires_grad = True
        searched.to(run.device)
        snapshot, searching = Snapshot(Step.parse(self.rewind)), MaskedTask(task)
        with run.bars.track("rounds", self.rounds) as tick:
            for index in range(self.rounds):
                observers: list[Observer] = [TemperatureRamp(self, searched, soft), *([snapshot] if index == 0 else [])]
                # The average of the weights would hold that of s too, and the ticket takes neither.
                recipe = replace(task.recipe, ema=0.0)
                run.stage(f"round-{index:02d}", searching, searched, recipe=recipe, observers=observers)
                if index < self.rounds - 1:
                    for score in searched.named_scores.values():
                        score.mul_(self.heat).clamp_(max=self.start)
                tick(f"density {positive(searched.named_scores).density:.3g}")
        mask = self._at_most_density(positive(searched.named_scores), searched)
        start = Values(self._ticket_values(snapshot, soft.scale, mask), self.rewind, snapshot.epochs_spent)
        put_values(searched.called.model, start.tensors)
        searched.settle(mask)
        before = run.validate(searching, searched, task.recipe)
        return Ticket(mask, start, recipe={"start": self.rewind}, provenance=Provenance(before=before))

    def _at_most_density(self, mask: Mask, searched: MaskedModel) -> Mask:
        """The mask, with the best weight of each empty layer and without the lowest s above the density."""
        if mask.collapsed:
            names = ", ".join(f"'{layer}'" for layer in mask.collapsed)
            warnings.warn(
                f"nothing was left of {names}; its best weight was kept: lower the penalty or raise the start",
                SearchWarning,
                stacklevel=2,
            )
            everything = Mask.full(mask.shapes)
            mask |= Mask.of({layer: searched.highest(layer, everything, 1) for layer in mask})
        if mask.density <= self.density:
            return mask
        return select(searched.named_scores, self.density, within=mask, floor=1)

    def _ticket_values(self, snapshot: Snapshot, scale: float, mask: Mask) -> dict[str, Tensor]:
        prefix = "called.model."
        tensors = {n.removeprefix(prefix): t for n, t in snapshot.taken.items() if n.startswith(prefix)}
        return {name: tensor * scale if name in mask else tensor for name, tensor in tensors.items()}


def _check_optimizer(task: Task) -> None:
    """TombolaError unless weights and scores can have one optimizer, whose weight decay is known."""
    recipe = task.recipe
    own = any(getattr(task, name, None) is not None for name in ("optimizer", "scheduler"))
    if own or recipe.optimizer not in ("sgd", "adam", "adamw") or recipe.options or recipe.ham_alpha or recipe.ham_beta:
        raise TombolaError(
            "continuous sparsification trains weights and scores with one optimizer, and has to know its weight decay; "
            "give a task whose recipe has sgd, adam or adamw without options or HAM, and no optimizer of its own"
        )


class SoftMask:
    """weight · scale · σ(β·s) while gradients are wanted, else weight · scale · [s > 0]."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.heat = 1.0

    def __call__(self, scores: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
        pairs = zip(scores, weights, strict=True)
        if torch.is_grad_enabled():
            gated = [weight * (self.scale * torch.sigmoid(self.heat * score)) for score, weight in pairs]
        else:
            gated = [weight * (self.scale * (score > 0)) for score, weight in pairs]
        # Scores are float32, and so would be the weights of a network in half precision.
        return [value.to(weight.dtype) for value, weight in zip(gated, weights, strict=True)]


class TemperatureRamp(Observer):
    """Lets β grow by the same factor each epoch, adds the penalty, and cancels weight decay on the scores."""

    def __init__(self, settings: ContinuousSparsification, searched: MaskedModel, soft: SoftMask) -> None:
        self._settings = settings
        self._searched = searched
        self._soft = soft

    def epoch_begin(self, state: State) -> None:
        last = state.recipe.epochs - 1
        self._soft.heat = self._settings.heat ** (state.epoch / last if last else 1.0)

    def before_step(self, state: State) -> None:
        heat, scale = self._soft.heat, self._soft.scale
        for score in self._searched.scores:
            if score.grad is not None:
                soft = torch.sigmoid(heat * score.detach())
                score.grad.add_(soft * (1 - soft), alpha=self._settings.penalty * scale * heat)
                if state.recipe.optimizer == "adamw":  # It shrinks scores apart from the gradient: grow them before.
                    rate = state.recipe.lr_at(state.step, state.steps_per_epoch)
                    score.detach().div_(1 - rate * state.recipe.weight_decay)
                else:
                    score.grad.sub_(score.detach(), alpha=state.recipe.weight_decay)

    def epoch_end(self, state: State) -> None:
        state.history[-1]["density"] = positive(self._searched.named_scores).density


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))
