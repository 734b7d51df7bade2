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

STEADY = 1.3


class SearchWarning(UserWarning):
    """A search of scores emptied a layer; says which, and what was done."""


@dataclass(frozen=True)
class DensityDecay:
    """How a search's density falls.

    keep: how scores become the mask of each step: `half`, those above ½ of scores clamped to [0, 1] (Gem-Miner);
    `top`, the highest |score| up to the density (edge-popup). scope: whether weights are ranked over the whole network
    or by layer. gradual: whether the density falls over the search, by the same share each period: `half` freezes
    the lowest scores for good, `top` keeps fewer. period: as "5ep" or "100it"; if empty, the search has
    `periods` equal ones.
    penalty: λ of λ‖score‖²; `auto` is led by the density curve. norm: `l2`, or `l1` for λ‖score‖₁. final: the mask that
    is kept: all that was not frozen (`alive`, of exactly the density), or of it what rounds to 1 (`rounded`).
    ties: `exact`, or `paper-code`, where all that equals the last score to be frozen is frozen with it. floor: weights
    that each layer keeps at least; with 0 a search that empties a layer stops, with the last mask that did not.
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

    def __init__(self, own: DensityDecay, searched: MaskedModel, top: TopShare | None) -> None:
        self._own = own
        self._searched = searched
        self._top = top
        self._alive = Mask.full(dict(zip(searched.names, searched.weights, strict=True)))
        self._good: Mask | None = None
        self._penalty = 0.0 if own.penalty == "auto" else own.penalty
        self._emptied: dict[str, int] = {}
        self._events: list[int] = []

    def epoch_begin(self, state: State) -> None:
        steps, spe = state.recipe.epochs * state.steps_per_epoch, state.steps_per_epoch
        self._events = freezing_steps(self._own.period, self._own.periods, steps, spe)
        if self._own.period and self._own.gradual and not self._events:
            raise TombolaError(
                f"the period {self._own.period} does not fit into a search of {state.recipe.epochs} epochs; shorten it"
            )
        if self._own.penalty == "auto" and not self._penalty:
            self._penalty = first_penalty(self._own.density, state.recipe, state.steps_per_epoch)
        self._lead(state)
        self._fall(state.step)
        if state.step == 0:
            self._look(1)

    def before_step(self, state: State) -> None:
        if self._own.norm == "l1":
            for score in self._searched.scores:
                if score.grad is not None:
                    score.grad.add_(score.detach().sign(), alpha=self._penalty)

    def after_step(self, state: State) -> None:
        if self._top is not None:
            self._top.thresholds.clear()
        else:
            for score in self._searched.scores:
                score.detach().clamp_(0.0, 1.0)
        if state.step in self._events and self._own.gradual and not self.stopped:
            self._freeze(state)

    def epoch_end(self, state: State) -> bool:
        shown = self._look(state.epoch)
        state.history[-1] |= {"density": shown.density, "penalty": self._penalty}
        return self.stopped

    @property
    def stopped(self) -> bool:
        """Whether a layer lost its last weight and no floor gave it back."""
        return bool(self._emptied) and not self._own.floor

    def result(self) -> Mask:
        """The mask that the search came to."""
        own, scores = self._own, self._searched.named_scores
        if self.stopped:
            if self._good is None:
                raise TombolaError(
                    f"the search had nothing left in '{next(iter(self._emptied))}' before its first step; set a floor, "
                    "rank by layer or raise the density"
                )
            return self._good
        if self._top is None and own.final == "rounded":
            return self._shown()
        if self._top is None and self._alive.total_kept <= round(own.density * self._alive.size):
            return self._alive
        return self._best({name: score.abs() for name, score in scores.items()}, own.density)

    def state_dict(self) -> dict[str, Any]:
        masks = {"alive": dict(self._alive), "good": None if self._good is None else dict(self._good)}
        return {**masks, "penalty": self._penalty, "emptied": self._emptied}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._alive = Mask.of(state["alive"])
        self._good = None if state["good"] is None else Mask.of(state["good"])
        self._penalty, self._emptied = state["penalty"], state["emptied"]

    def _target(self, level: int) -> float:
        return self._own.density ** (level / len(self._events)) if self._events else self._own.density

    def _level(self, step: int) -> int:
        return sum(event <= step for event in self._events)

    def _fall(self, step: int) -> None:
        if self._top is not None and self._own.gradual:
            self._top.share = self._target(self._level(step))
            self._top.thresholds.clear()

    def _lead(self, state: State) -> None:
        if self._own.norm == "l2":
            for group in state.optimizer.param_groups:
                group["weight_decay"] = 2 * self._penalty

    def _freeze(self, state: State) -> None:
        """One period is over: fewer weights from here on."""
        target = self._target(self._level(state.step))
        self._fall(state.step)
        shown = self._look(state.epoch + 1)
        if self._top is not None:
            return
        if self._own.penalty == "auto":
            self._penalty *= STEADY if shown.density > target else 1 / STEADY
            self._lead(state)
        self._alive = self._left(target)
        self._searched.remove({name: ~self._alive[name] for name in self._alive})

    def _best(self, scores: dict[str, Tensor], density: float) -> Mask:
        """The highest-scored of what is alive; that clamped scores are often equal is no news."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TieWarning)
            return select(scores, density, scope=self._own.scope, within=self._alive, floor=self._own.floor)

    def _left(self, target: float) -> Mask:
        """What stays alive at a density; in the paper's code, what is above the last score of those that go."""
        own, scores = self._own, self._searched.named_scores
        if own.ties == "exact":
            return self._best(scores, target)
        alive = {name: score[self._alive[name].to(score.device)] for name, score in scores.items()}
        groups = [list(alive)] if own.scope == "global" else [[name] for name in alive]
        kept: dict[str, Tensor] = {}
        for group in groups:
            values = [alive[name] for name in group if alive[name].numel()]
            staying = math.floor(self._target(1) * sum(own.numel() for own in values))
            going = staying < sum(own.numel() for own in values)
            last = kth_largest(values, staying + 1) if going else -1.0
            kept |= {name: (scores[name] > last) & self._alive[name].to(scores[name].device) for name in group}
        short = [name for name, own in kept.items() if int(own.sum()) < self._own.floor]
        return Mask.of(
            kept | {name: kept[name] | self._searched.highest(name, self._alive, own.floor) for name in short}
        )

    def _shown(self) -> Mask:
        """The mask at which the network is evaluated now."""
        scores = self._searched.named_scores
        if self._top is None:
            return Mask.of({name: score > 0.5 for name, score in scores.items()}) & self._alive
        return self._top.mask(scores)

    def _look(self, epoch: int) -> Mask:
        """The mask of now; empty layers are noted and warned of, and given their best weights if there is a floor."""
        for layer, score in self._searched.named_scores.items():
            if score.isnan().any():
                raise TombolaError(f"the scores of '{layer}' contain NaN in epoch {epoch} of the search; lower its lr")
        shown = self._shown()
        if fresh := [layer for layer in shown.collapsed if layer not in self._emptied]:
            self._emptied |= dict.fromkeys(fresh, epoch)
            _warn_of_empty(fresh, epoch, self._own.floor, shown.density, self._penalty)
        if self._own.floor and self._top is None:
            for layer in shown.collapsed:
                self._searched.named_scores[layer].masked_fill_(
                    self._searched.highest(layer, self._alive, self._own.floor), 1.0
                )
        if not shown.collapsed:
            self._good = shown
        return shown


def freezing_steps(period: str, periods: int, steps: int, steps_per_epoch: int) -> list[int]:
    """The optimizer steps after which the density falls: between so many equal periods, or after each `period`.

    Epochs count as in the paper's code: with "5ep" after the epochs that bear the numbers 5, 10, … from 0.

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
    """λ at which the penalty alone would shrink scores by about the density over the whole search.

    With SGD; the paper's tuned λ for ResNet-20 lie at 0.3 to 1.4 times this. Adam divides the penalty by the
    gradients' size, so there it is a number that was found good here.
    """
    if recipe.optimizer != "sgd":
        return 1e-5
    total = sum(recipe.lr_at(step, steps_per_epoch) for step in range(recipe.epochs * steps_per_epoch))
    return -math.log(density) * (1 - recipe.momentum) / (2 * total)


def _warn_of_empty(layers: list[str], epoch: int, floor: int, density: float, penalty: float) -> None:
    named = ", ".join(f"'{layer}'" for layer in layers)
    done = f"the best {floor} of each were kept" if floor else "the search stops at its last mask that keeps some"
    warnings.warn(
        f"nothing was left of {named} in epoch {epoch} of the search, at density {density:.3g} and penalty "
        f"{penalty:.3g}; {done}: lower the penalty, lengthen the search or raise the density",
        SearchWarning,
        stacklevel=2,
    )
