"""Adversarial training: a task whose training inputs are attacked before the network learns from them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError, unknown
from tombola.fields import check_fields
from tombola.scores import Batch, Forward, batch_size
from tombola.tickets import Mask, attach, device_of
from tombola.training.attacks import Attack, Ball
from tombola.training.auto_attack import Apgd
from tombola.training.batches import move
from tombola.training.lengths import length_or_none
from tombola.training.loaders import pairs_of
from tombola.training.recipe import Recipe, autocast
from tombola.training.task import Task, TaskWrapper

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


UNATTACKED = Adversary(Attack(epsilon=0.0), (0.0, 1.0), RobustCheck())
"""In place of the wrapper's property, until a task has its own."""


@dataclass(frozen=True)
class AdversarialTask(TaskWrapper):
    """A task with attacked training inputs, made by `tombola.adversarial`.

    Args:
        task: the task.
        adversary: what attacks its training inputs.
    """

    adversary: Adversary = UNATTACKED

    def __getattr__(self, name: str) -> Any:
        # While it is unpickled there is no `task` yet, and looking it up would come back here without end.
        if name.startswith("__") or name == "task":
            raise AttributeError(name)
        found = getattr(self.task, name)
        return (lambda width: replace(self, task=found(width))) if name == "narrow" else found

    @property
    def labels(self) -> Mapping[str, str]:
        return {**super().labels, **self.adversary.labels}


def adversarial(
    task: Task,
    attack: Attack | Apgd | str = "pgd",
    *,
    data_range: tuple[Bound, Bound] | None = None,
    check: RobustCheck | None = None,
) -> AdversarialTask:
    """Make a task adversarial: whatever trains on it learns from attacked inputs (Madry et al., ICLR 2018).

    It goes wherever a task does: dense networks, tickets, controls and searches train on attacked inputs, and scores
    see them too. Validation and test stay clean; the history has robust accuracy beside it, and verdicts have it as a
    further measure.

    Args:
        task: any task whose inputs are one tensor of floating point numbers.
        attack: `pgd` (10 steps from a random point), `fgsm` (one step of ε) or `fast` (one step from a random point),
            each with ε = 8/255; or an `Attack` or `Apgd` with settings of its own.
        data_range: the lowest and the highest value that inputs can have, as (0, 1); for normalised data on their
            scale, one number or one for each channel.
        check: how robust accuracy is watched, and whether it ends training early.

    Returns:
        The task. It keeps the range of the data and the units of ε, and so does the file of a ticket found on it.

    Raises:
        TombolaError: without a range, or for an attack that does not exist.

    Examples:
        >>> import tombola as tb
        >>> from tombola.testing import toy_task
        >>> task = tb.adversarial(toy_task(epochs=1), tb.training.Attack(0.01, steps=2), data_range=(-9, 9))
        >>> result = tb.train(task)
        >>> "robust_pgd" in result.history[0], result.cost.samples_backward  # 108 thrice, 12 twenty times in the check
        (True, 564)
    """
    if not isinstance(task, Task):
        raise TombolaError(f"the task is a {type(task).__name__}; give a task, as tb.SupervisedTask(…)")
    if isinstance(attack, str):
        if attack not in NAMED:
            raise unknown("attack", attack, NAMED)
        attack = NAMED[attack]()
    if not isinstance(attack, Attack | Apgd):
        raise TombolaError(f"the attack is a {type(attack).__name__}; give 'pgd', 'fgsm', 'fast' or an Attack")
    if data_range is None:
        raise TombolaError(
            "data_range is missing: an attack must know the lowest and the highest value of the inputs; give it, as "
            "data_range=(0, 1) for pixels from 0 to 1, or each channel's on the scale of normalised data"
        )
    adversary = Adversary(attack, _as_range(data_range), RobustCheck() if check is None else check)
    return AdversarialTask(without_attack(task), adversary)


def adversary_of(task: Task) -> Adversary | None:
    """What attacks a task's training inputs; None if nothing does."""
    return getattr(task, "adversary", None)


def without_attack(task: Task) -> Task:
    """The same task with clean training inputs."""
    if isinstance(task, AdversarialTask):
        return without_attack(task.task)
    if isinstance(task, TaskWrapper) and task.adversary is not None:
        return replace(task, task=without_attack(task.task))
    return task


def with_attack(task: Task, attack: Attack | Apgd) -> Task:
    """The same adversarial task with another attack; a task without one stays as it is."""
    if isinstance(task, AdversarialTask):
        return replace(task, adversary=replace(task.adversary, attack=attack))
    if isinstance(task, TaskWrapper) and task.adversary is not None:
        return replace(task, task=with_attack(task.task, attack))
    return task


def _in_words(bound: Bound) -> str:
    return ",".join(map(repr, bound if isinstance(bound, tuple) else (bound,)))


def _as_range(given: Any) -> tuple[Bound, Bound]:
    """The range as Python's own numbers."""
    try:
        low, high = (torch.as_tensor(bound, dtype=torch.float64).tolist() for bound in given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TombolaError(
            f"data_range is {given!r}; give the lowest and the highest value of the inputs, as (0, 1)"
        ) from error
    return (tuple(low) if isinstance(low, list) else low), (tuple(high) if isinstance(high, list) else high)


class Attacker:
    """Attacks the inputs of a network that trains.

    Args:
        task: gives the adversary, the forward pass and the loss.
        network: the network.
        recipe: gives the precision.
        attack: another one than the task's own.
        forward: in place of the task's.
    """

    def __init__(
        self,
        task: Task,
        network: Any,
        recipe: Recipe,
        attack: Attack | Apgd | None = None,
        forward: Forward | None = None,
    ) -> None:
        adversary = adversary_of(task)
        assert adversary is not None
        self._adversary, self._attack = adversary, attack or adversary.attack
        self._task, self._module, self._recipe = task, network, recipe
        self._forward = forward or task.forward

    @property
    def passes(self) -> int:
        """How many forward and backward passes an attack takes."""
        return self._attack.passes

    def __call__(self, inputs: Tensor, targets: Any) -> Tensor:
        """The attacked inputs; on the network's device."""
        low, high = self._adversary.bounds(inputs)
        precision = self._recipe.resolved_precision(inputs.device) if inputs.device.type != "meta" else "float32"

        def call(points: Tensor) -> Any:
            # Small gradients become 0 in fp16, which has no sign.
            with autocast(self._recipe, points.device) if precision == "bf16" else torch.enable_grad():
                return self._forward(self._module, points)

        return self._attack(self._module, call, inputs, targets, self._task.loss, low, high).detach()


def attacker(task: Task, network: Any, recipe: Recipe) -> Attacker | None:
    """What attacks the inputs of a network that trains on a task; None if the task is not adversarial."""
    return None if adversary_of(task) is None else Attacker(task, network, recipe)


@dataclass(frozen=True)
class AttackedBatches:
    """Batches whose inputs are attacked as they are read.

    Args:
        source: the batches.
        attacker: attacks them.
        device: where.
    """

    source: Iterable[Batch]
    attacker: Attacker
    device: torch.device

    def __len__(self) -> int:
        length = length_or_none(self.source)
        if length is None:
            raise TypeError("these batches have no length")
        return length

    def __iter__(self) -> Iterator[Batch]:
        for batch in pairs_of(self.source):
            inputs, targets = move(batch, self.device)
            yield self.attacker(inputs, targets), targets


def attacked_batches(
    task: Task, model: nn.Module, batches: Iterable[Batch], mask: Mask | None, forward: Forward
) -> Iterable[Batch]:
    """The batches that a score sees: those of an adversarial task are attacked against the network that is scored.

    Args:
        task: the task.
        model: the network.
        batches: of the task.
        mask: what of the network is alive; None for all.
        forward: calls it.
    """
    if adversary_of(task) is None:
        return batches
    network = copy.deepcopy(model)
    if mask is not None:
        attach(mask, network).detach()  # Attaching zeroes what is dead.
    recipe = replace(task.recipe, precision="float32")
    return AttackedBatches(batches, Attacker(task, network, recipe, forward=forward), device_of(model))


def samples_of(batch: Batch, most: int) -> Batch:
    """The first samples of a batch whose inputs are a tensor."""
    inputs, targets = batch
    return (inputs[:most], targets[:most]) if batch_size(batch) > most else (inputs, targets)
