"""What attacks a task's training inputs, and how robust accuracy is watched."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.training.attacks import Attack, Ball
from tombola.training.auto_attack import Apgd

Bound = float | tuple[float, ...]
"""A value of the data: one for all, or one for each channel (or feature)."""
ROUNDING = 1e-4
"""By how much of their range data may lie beyond it: normalisation rounds."""
NAMED: dict[str, Callable[..., Attack]] = {"pgd": Attack, "fgsm": Attack.fgsm, "fast": Attack.fast}


class AttackWarning(UserWarning):
    """An attack that is hardly what was meant."""


@dataclass(frozen=True)
class RobustCheck:
    """How robust accuracy is watched on the validation split while a network trains, and what follows from it.

    Args:
        by: the attacks, with the ε of the task's own: `pgd` from a random point, and `apgd`. Where there are several,
            the lowest accuracy counts.
        steps: of each attack.
        samples: how many samples are attacked, the first of the split.
        every: after how many epochs.
        patience: training ends after so many checks without a better one; 0 trains to the end.
        keep: which weights training leaves: those after its last epoch (`last`), or of the check with the highest
            robust accuracy (`best`).

    Raises:
        TombolaError: if a number is too small, or there is no attack.
    """

    by: tuple[Literal["pgd", "apgd"], ...] = ("pgd",)
    steps: int = 20
    samples: int = 512
    every: int = 1
    patience: int = 0
    keep: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.steps, self.samples, self.every) < 1 or self.patience < 0 or not self.by:
            raise TombolaError(
                f"the check has by={self.by}, steps={self.steps}, samples={self.samples}, every={self.every}, "
                f"patience={self.patience}; give an attack, numbers of at least 1, and a patience of at least 0"
            )

    def attacks(self, own: Ball) -> dict[str, Attack | Apgd]:
        """The attacks by name; own: the task's, which gives ε."""
        kinds = {"pgd": Attack, "apgd": Apgd}
        return {name: kinds[name](own.epsilon, own.units, steps=self.steps) for name in self.by}


@dataclass(frozen=True)
class Adversary:
    """What attacks a task's training inputs.

    Args:
        attack: how.
        data_range: the lowest and the highest value of the data; each one number, or one for each channel.
        check: how robust accuracy is watched.
    """

    attack: Attack | Apgd
    data_range: tuple[Bound, Bound]
    check: RobustCheck

    def __post_init__(self) -> None:
        low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in self.data_range)
        try:
            width = high - low
        except RuntimeError:
            width = torch.zeros(())
        if not (low.ndim <= 1 and high.ndim <= 1 and width.isfinite().all() and (width > 0).all()):
            raise TombolaError(
                f"data_range is {self.data_range}; give the lowest and the highest value of the inputs, as (0, 1), "
                "each one number or one for each channel"
            )
        epsilon = self.attack.epsilon
        if epsilon > (1.0 if self.attack.units == "share" else float(width.max())):
            fix = f"as {epsilon:g}/255" if self.attack.units == "share" else "or units='share'"
            what = "a share of the data's range" if self.attack.units == "share" else f"in data of {self.data_range}"
            warnings.warn(
                f"ε is {epsilon:g}, {what}: an attack may turn any input into any other; give less, {fix}",
                AttackWarning,
                stacklevel=4,
            )

    @property
    def labels(self) -> dict[str, str]:
        """Attack, ε with its units, and range, in the words of the command line where it knows the attack."""
        own = self.attack
        attacks = {name: make(own.epsilon, own.units) for name, make in NAMED.items()}
        steps = getattr(own, "steps", 0)
        name = next((name for name, plain in attacks.items() if own in (plain, replace(plain, steps=steps))), str(own))
        said = {"attack": name, "attack-epsilon": repr(own.epsilon)}  # all digits, so that it is the same task again
        said |= {"attack-steps": str(steps)} if name == "pgd" and steps != Attack.steps else {}
        said |= {"attack-units": own.units} if own.units != "share" else {}
        return said | {"data-range": " ".join(map(_in_words, self.data_range))}

    def bounds(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and highest value of the data, so that they broadcast against inputs."""
        low, high = (torch.as_tensor(bound, dtype=inputs.dtype, device=inputs.device) for bound in self.data_range)
        return self._along(low, inputs), self._along(high, inputs)

    def _along(self, bound: Tensor, inputs: Tensor) -> Tensor:
        if not bound.ndim:
            return bound
        if inputs.ndim < 2 or inputs.shape[1] != len(bound):
            raise TombolaError(
                f"data_range gives {len(bound)} numbers, and the inputs have the shape {tuple(inputs.shape)}; give one "
                "for each channel, which is the second dimension"
            )
        return bound.view(-1, *[1] * (inputs.ndim - 2))

    def check_batch(self, inputs: Any, targets: Any) -> None:
        """TombolaError for a batch whose inputs cannot be attacked, or whose targets no attack can use."""
        self.check_inputs(inputs)
        if "apgd" in self.check.by or isinstance(self.attack, Apgd):
            Apgd.check_targets(targets)

    def check_inputs(self, inputs: Any) -> None:
        """TombolaError for inputs that cannot be attacked, or lie outside the range."""
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            what = inputs.dtype if isinstance(inputs, Tensor) else f"a {type(inputs).__name__}"
            raise TombolaError(
                f"an attack moves inputs by fractions, and this task's are {what}; give inputs that are one tensor of "
                "floating point numbers, as images.float() / 255"
            )
        low, high = self.bounds(inputs)
        slack = ROUNDING * (high - low)
        if not ((inputs >= low - slack) & (inputs <= high + slack)).all():
            raise TombolaError(
                f"the inputs reach from {inputs.min():.3g} to {inputs.max():.3g}, outside data_range="
                f"{self.data_range}; give the range on the inputs' own scale, after any normalisation"
            )


def _in_words(bound: Bound) -> str:
    return ",".join(map(repr, bound if isinstance(bound, tuple) else (bound,)))
