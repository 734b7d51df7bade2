"""How the density falls while scores are trained: freezing, the penalty, and layers that empty."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.masked_model import MaskedModel, TopShare
from tombola.tickets import Mask, TieWarning, kth_largest, select
from tombola.training import Observer, Recipe, State, Step

PENALTY_FACTOR = 1.3
"""By how much an automatic penalty rises or falls at the end of a period."""


class SearchWarning(UserWarning):
    """A search could not do all that was asked of it; the message says what it did in its place."""


@dataclass(frozen=True)
class DensityDecay:
    """How a search's density falls.

    Args:
        density: the share of units to keep, above 0 and at most 1.
        keep: how scores become the mask of each step: `half` clamps them to [0, 1] and keeps those above
            ½ (Gem-Miner); `top` keeps the highest |score| up to the density (edge-popup).
        scope: whether weights are ranked over the whole network or in each layer.
        gradual: whether the density falls over the search, by the same share each period. With it, `half` freezes the
            lowest scores for good, and `top` keeps fewer.
        period: the time between two falls, as "5ep" or "100it"; if empty, `periods` decides.
        periods: into how many equal periods the search is divided.
        penalty: λ of the penalty on the scores; `auto` makes the penalty follow the density's curve.
        norm: the penalty is λ‖score‖² (`l2`) or λ‖score‖₁ (`l1`).
        final: the mask of the ticket: all that was not frozen, which has exactly the density (`alive`), or what of it
            rounds to 1 (`rounded`).
        ties: `exact` freezes as many scores as the density says; `paper-code` also those equal to the last of them.
        floor: weights that each layer keeps at least. With 0, a search that empties a layer stops and keeps the last
            mask that did not.
    """

    density: float = 0.05
    keep: Literal["half", "top"] = "half"
    scope: Literal["global", "layerwise"] = "global"
    gradual: bool = True
    period: str = ""
    periods: int = 30
    penalty: float | Literal["auto"] = "auto"
    norm: Literal["l2", "l1"] = "l2"
    final: Literal["alive", "rounded"] = "alive"
    ties: Literal["exact", "paper-code"] = "exact"
    floor: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        if self.period and not Step.parse(self.period).count:
            raise TombolaError(f"the period is {self.period}; give one of at least a step, as 100it or 5ep")
        for name, least in (("periods", 1), ("floor", 0)):
            if getattr(self, name) < least:
                raise TombolaError(f"{name} is {getattr(self, name)}; give at least {least}")
        if self.penalty == "auto" and self.keep == "top":
            raise TombolaError("an automatic penalty follows the density, which keep='top' fixes; give a number")
        if self.penalty != "auto" and not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise TombolaError(f"the penalty is {self.penalty}; give a number of at least 0, or auto")


class ScoreFreezing(Observer):
    """Lets the density of a search fall period by period, leads the penalty, and watches for empty layers."""

    def __init__(self, settings: DensityDecay, searched: MaskedModel, top_share: TopShare | None) -> None:
        self._settings = settings
        self._searched = searched
        self._top_share = top_share
        self._alive = Mask.full(dict(zip(searched.names, searched.weights, strict=True)))
        self._last_good: Mask | None = None
        self._penalty = 0.0 if settings.penalty == "auto" else settings.penalty
        self._emptied: dict[str, int] = {}
        self._events: list[int] = []

    def epoch_begin(self, state: State) -> None:
        steps, per_epoch = state.recipe.epochs * state.steps_per_epoch, state.steps_per_epoch
        self._events = freezing_steps(self._settings.period, self._settings.periods, steps, per_epoch)
        if self._settings.period and self._settings.gradual and not self._events:
            raise TombolaError(
                f"the period {self._settings.period} does not fit into a search of {state.recipe.epochs} epochs; "
                "shorten it"
            )
        if self._settings.penalty == "auto" and not self._penalty:
            self._penalty = first_penalty(self._settings.density, state.recipe, state.steps_per_epoch)
        self._set_penalty(state)
        self._lower_share(state.step)
        if state.step == 0:  # A layer may be empty before anything was trained.
            self._check_layers(1)

    def before_step(self, state: State) -> None:
        if self._settings.norm == "l1":
            for score in self._searched.scores:
                if score.grad is not None:
                    score.grad.add_(score.detach().sign(), alpha=self._penalty)

    def after_step(self, state: State) -> None:
        if self._top_share is not None:
            self._top_share.thresholds.clear()
        else:
            for score in self._searched.scores:
                score.detach().clamp_(0.0, 1.0)  # In place: the optimizer goes on with the same tensor.
        if state.step in self._events and self._settings.gradual and not self.stopped:
            self._freeze(state)

    def epoch_end(self, state: State) -> bool:
        current = self._check_layers(state.epoch)
        state.history[-1] |= {"density": current.density, "penalty": self._penalty}
        return self.stopped

    @property
    def stopped(self) -> bool:
        """Whether a layer lost its last weight and no floor gave it back."""
        return bool(self._emptied) and not self._settings.floor

    def result(self) -> Mask:
        """The mask that the search came to."""
        settings, scores = self._settings, self._searched.named_scores
        if self.stopped:
            if self._last_good is None:
                raise TombolaError(
                    f"the search had nothing left in '{next(iter(self._emptied))}' before its first step; set a floor, "
                    "rank by layer or raise the density"
                )
            return self._last_good
        if self._top_share is None and settings.final == "rounded":
            return self._current_mask()
        if self._top_share is None and self._alive.total_kept <= round(settings.density * self._alive.size):
            return self._alive
        return self._best({name: score.abs() for name, score in scores.items()}, settings.density)

    def state_dict(self) -> dict[str, Any]:
        masks = {"alive": dict(self._alive), "good": None if self._last_good is None else dict(self._last_good)}
        return {**masks, "penalty": self._penalty, "emptied": self._emptied}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._alive = Mask.of(state["alive"])
        self._last_good = None if state["good"] is None else Mask.of(state["good"])
        self._penalty, self._emptied = state["penalty"], state["emptied"]

    def _target(self, level: int) -> float:
        return self._settings.density ** (level / len(self._events)) if self._events else self._settings.density

    def _level(self, step: int) -> int:
        return sum(event <= step for event in self._events)

    def _lower_share(self, step: int) -> None:
        if self._top_share is not None and self._settings.gradual:
            self._top_share.share = self._target(self._level(step))
            self._top_share.thresholds.clear()

    def _set_penalty(self, state: State) -> None:
        if self._settings.norm == "l2":
            for group in state.optimizer.param_groups:
                group["weight_decay"] = 2 * self._penalty  # The gradient of λ‖score‖² is 2λ · score.

    def _freeze(self, state: State) -> None:
        """End a period: fewer weights from here on."""
        target = self._target(self._level(state.step))
        self._lower_share(state.step)
        current = self._check_layers(state.epoch + 1)
        if self._top_share is not None:
            return
        if self._settings.penalty == "auto":
            self._penalty *= PENALTY_FACTOR if current.density > target else 1 / PENALTY_FACTOR
            self._set_penalty(state)
        self._alive = self._alive_at(target)
        self._searched.remove({name: ~self._alive[name] for name in self._alive})

    def _best(self, scores: dict[str, Tensor], density: float) -> Mask:
        """The highest-scored of what is alive; clamped scores are often equal, so ties are not warned of."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TieWarning)
            return select(scores, density, scope=self._settings.scope, within=self._alive, floor=self._settings.floor)

    def _alive_at(self, target: float) -> Mask:
        """What stays alive at a density; in the paper's code, the scores above the highest frozen one."""
        floor, scores = self._settings.floor, self._searched.named_scores
        if self._settings.ties == "exact":
            return self._best(scores, target)
        alive = {name: score[self._alive[name].to(score.device)] for name, score in scores.items()}
        groups = [list(alive)] if self._settings.scope == "global" else [[name] for name in alive]
        kept: dict[str, Tensor] = {}
        for group in groups:
            values = [alive[name] for name in group if alive[name].numel()]
            size = sum(value.numel() for value in values)
            count = math.floor(self._target(1) * size)  # The paper's code cuts the same share of the rest each period.
            last_frozen = kth_largest(values, count + 1) if count < size else -1.0
            kept |= {name: (scores[name] > last_frozen) & self._alive[name].to(scores[name].device) for name in group}
        short = [name for name, bits in kept.items() if int(bits.sum()) < floor]
        return Mask.of(kept | {name: kept[name] | self._searched.highest(name, self._alive, floor) for name in short})

    def _current_mask(self) -> Mask:
        """The mask at which the network is evaluated now."""
        scores = self._searched.named_scores
        if self._top_share is None:
            return Mask.of({name: score > 0.5 for name, score in scores.items()}) & self._alive
        return self._top_share.mask(scores)

    def _check_layers(self, epoch: int) -> Mask:
        """The mask of now. Layers that it empties are warned of, and get their best weights back if there is a
        floor.
        """
        for layer, score in self._searched.named_scores.items():
            if score.isnan().any():
                raise TombolaError(f"the scores of '{layer}' contain NaN in epoch {epoch} of the search; lower its lr")
        current = self._current_mask()
        if newly_empty := [layer for layer in current.collapsed if layer not in self._emptied]:
            self._emptied |= dict.fromkeys(newly_empty, epoch)
            _warn_of_empty(newly_empty, epoch, self._settings.floor, current.density, self._penalty)
        if self._settings.floor and self._top_share is None:
            for layer in current.collapsed:
                self._searched.named_scores[layer].masked_fill_(
                    self._searched.highest(layer, self._alive, self._settings.floor), 1.0
                )
        if not current.collapsed:
            self._last_good = current
        return current


def freezing_steps(period: str, periods: int, steps: int, steps_per_epoch: int) -> list[int]:
    """The optimizer steps after which the density falls.

    Epochs count as in the paper's code: "5ep" means after the epochs numbered 5, 10, … from 0.

    Args:
        period: the time between two falls, as "5ep" or "100it"; if empty, `periods` decides.
        periods: into how many equal periods the search is divided.
        steps: of the whole search.
        steps_per_epoch: of one epoch.

    Examples:
        >>> freezing_steps("", 4, 100, 10), freezing_steps("2ep", 4, 60, 10)
        ([25, 50, 75], [30, 50])
    """
    if not period:
        return sorted({steps * number // periods for number in range(1, periods)} - {0})
    at = Step.parse(period)
    every = at.iterations(steps_per_epoch)
    first = every + (steps_per_epoch if at.unit == "ep" else 0)
    return list(range(first, steps + (at.unit == "ep"), every))


def first_penalty(density: float, recipe: Recipe, steps_per_epoch: int) -> float:
    """The λ at which the penalty alone would shrink scores by about the density over the whole search.

    This holds for SGD, where the paper's tuned λ for ResNet-20 are 0.3 to 1.4 times as large. Adam divides the penalty
    by the size of the gradients, so it gets a fixed λ that worked well in our own runs.
    """
    if recipe.optimizer != "sgd":
        return 1e-5
    lr_sum = sum(recipe.lr_at(step, steps_per_epoch) for step in range(recipe.epochs * steps_per_epoch))
    return -math.log(density) * (1 - recipe.momentum) / (2 * lr_sum)


def _warn_of_empty(layers: list[str], epoch: int, floor: int, density: float, penalty: float) -> None:
    names = ", ".join(f"'{layer}'" for layer in layers)
    outcome = f"the best {floor} of each were kept" if floor else "the search stops at its last mask that keeps some"
    warnings.warn(
        f"nothing was left of {names} in epoch {epoch} of the search, at density {density:.3g} and penalty "
        f"{penalty:.3g}; {outcome}: lower the penalty, lengthen the search or raise the density",
        SearchWarning,
        stacklevel=2,
    )
