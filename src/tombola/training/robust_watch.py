"""Robust accuracy of a network: measured once, or watched while it trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.registry import lower_is_better
from tombola.structure import in_mode
from tombola.tickets import device_of, put_values, recomputable, tensors_of
from tombola.training.adversarial_task import adversary_of
from tombola.training.attacked_batches import Attacker, samples_of
from tombola.training.attacks import Attack
from tombola.training.auto_attack import Apgd
from tombola.training.batches import move
from tombola.training.cost import Cost, SampleFlops
from tombola.training.loaders import first_of, pairs_of
from tombola.training.metrics import Tally
from tombola.training.observers import Observer, State
from tombola.training.placement import placed
from tombola.training.randomness import own_randomness
from tombola.training.recipe import Recipe, autocast
from tombola.training.task import Split, Task, metric_of


def robust_metric(
    task: Task,
    model: nn.Module,
    attack: Attack | Apgd,
    split: Split = "test",
    *,
    samples: int | None = None,
    recipe: Recipe | None = None,
) -> tuple[float, int]:
    """Measure a network on attacked inputs.

    The attack draws from a seed of its own, so that a network has one result.

    Args:
        task: an adversarial task, which gives the range of the data.
        model: the network, on its device; its mode comes back.
        attack: how the inputs are attacked.
        split: which inputs.
        samples: how many, the first of the split; all if None.
        recipe: gives the precision; the task's if None.

    Returns:
        The task's metric, and of how many samples.

    Raises:
        TombolaError: if the task is not adversarial.

    Examples:
        >>> import tombola as tb
        >>> from tombola.testing import toy_task
        >>> task = tb.adversarial(toy_task(), data_range=(-9, 9))
        >>> robust_metric(task, task.build(0), tb.training.Attack(0.01, steps=2), samples=20)[1]
        20
    """
    adversary = adversary_of(task)
    if adversary is None:
        raise TombolaError("the task is not adversarial, so that no attack knows its data; use tb.adversarial(task, …)")
    device, recipe = device_of(model), recipe or task.recipe
    attacked_by = Attacker(task, model, recipe, attack)
    tally, count = Tally(metric_of(task), device), 0
    with recomputable(), in_mode(model, "eval"), own_randomness(device, 0):
        for batch in placed(pairs_of(task.batches(split, 0, 0)), device):
            left = None if samples is None else samples - count
            inputs, targets = move(batch if left is None else samples_of(batch, left), device)
            adversary.check_inputs(inputs)
            attacked = attacked_by(inputs, targets)
            with torch.no_grad(), autocast(recipe, device):
                tally.add(task.forward(model, attacked), targets, len(inputs))
            count += len(inputs)
            if count == samples:
                break
    return tally.value(count), count


class RobustWatch(Observer):
    """Measures robust accuracy on the validation split after epochs, and may end training and choose its weights.

    Args:
        task: an adversarial task, whose `check` says how.
        decides: whether training may end early, and leave other weights than its last.

    Attributes:
        kept: the epoch whose weights training leaves, counted from 1; 0 for those of the last.
    """

    is_measuring = True

    def __init__(self, task: Task, decides: bool = True) -> None:
        adversary = adversary_of(task)
        assert adversary is not None
        self._task, self._check, self._decides = task, adversary.check, decides
        self._attacks = self._check.attacks(adversary.attack)
        self._sign = -1.0 if lower_is_better(metric_of(task)) else 1.0
        self._highest, self._since = -torch.inf, 0
        self._values: dict[str, Tensor] = {}
        self.kept = 0
        self.spent = Cost()

    def epoch_end(self, state: State) -> bool:
        if state.epoch % self._check.every:
            return False
        found: dict[str, float] = {}
        with state.averaged():
            for name, attack in self._attacks.items():
                found[f"robust_{name}"], count = robust_metric(
                    self._task, state.model, attack, "validation", samples=self._check.samples, recipe=state.recipe
                )
                if not count:
                    return False
                self._charge(state, attack, count)
            state.history[-1] |= found
            value = min(self._sign * value for value in found.values())
            self._since += 1
            if value > self._highest:
                self._highest, self._since = value, 0
                if self._decides and self._check.keep == "best":
                    self.kept = state.epoch
                    self._values = {name: tensor.clone() for name, tensor in tensors_of(state.model).items()}
        return self._decides and 0 < self._check.patience <= self._since

    def training_end(self, state: State) -> None:
        if self._values:
            put_values(state.model, self._values)

    def state_dict(self) -> dict[str, Any]:
        spent = (self.spent.samples_forward, self.spent.samples_backward, self.spent.flops)
        return {
            "highest": self._highest,
            "since": self._since,
            "kept": self.kept,
            "values": self._values,
            "spent": spent,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._highest, self._since, self.kept = state["highest"], state["since"], state["kept"]
        self._values = state["values"]
        self.spent = Cost(*state["spent"])

    def _charge(self, state: State, attack: Attack | Apgd, count: int) -> None:
        batch = first_of(self._task.batches("validation", 0, 0))
        flops = SampleFlops.measure(self._task, state.model, batch)
        # A pass of the attack, as one of the task's own takes it.
        adversary = adversary_of(self._task)
        assert adversary is not None
        each = flops.attack / adversary.attack.passes
        self.spent += Cost(
            count * (attack.passes + 1), count * attack.passes, round(count * (each * attack.passes + flops.forward))
        )
