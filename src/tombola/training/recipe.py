"""How a network is trained: a recipe, the learning rate it gives at each step, the optimizer it makes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.tickets.torch_private import cpu_has_bf16
from tombola.training.step import Step


@dataclass(frozen=True)
class Recipe:
    """A way to train.

    epochs: length of the whole schedule. batch: samples a step. drop_last: leave out an epoch's last batch if it is not
    whole. schedule: of the learning rate, which changes with each step, in `cosine-by-epoch` with each epoch.
    milestones: for `multistep`, the shares of all epochs at which the learning rate is multiplied by gamma. warmup:
    epochs of linear warm-up, at whose end a cosine begins to fall; in `one-cycle` they take the place of its own rise,
    which is three tenths of all epochs. augment: `crop` (4 pixels of padding) and `flip`, as batched tensor operations.
    precision: `auto` is bf16 autocast where the processor has it. channels_last: `auto` is where it pays, in networks
    with 2-D convolutions. start: the point of the schedule where training begins, as a rewound ticket needs it.
    """

    epochs: int = 10
    batch: int = 128
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "multistep", "constant", "one-cycle", "cosine-by-epoch"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    warmup: float = 0.0
    label_smoothing: float = 0.0
    augment: tuple[Literal["crop", "flip"], ...] = ()
    precision: Literal["auto", "float32", "bf16"] = "auto"
    channels_last: Literal["auto", "on", "off"] = "auto"
    compile: bool = False
    start: str = "0it"
    drop_last: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "recipe")
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise TombolaError(f"the recipe's {name} is {getattr(self, name)}; give at least 1")
        for name in ("lr", "momentum", "weight_decay", "gamma", "warmup", "label_smoothing"):
            if getattr(self, name) < 0:
                raise TombolaError(f"the recipe's {name} is {getattr(self, name)}; give a number of at least 0")
        if self.label_smoothing > 1:
            raise TombolaError(f"the recipe's label_smoothing is {self.label_smoothing}; give at most 1")
        if not all(0 <= share <= 1 for share in self.milestones):
            raise TombolaError(
                f"the recipe's milestones are {self.milestones}; give shares of all epochs, from 0 to 1, as (0.5, 0.75)"
            )
        if self.nesterov and not self.momentum:
            raise TombolaError("the recipe asks for nesterov without momentum; set momentum, as 0.9")
        Step.parse(self.start)

    @staticmethod
    def check_fields(names: Iterable[str]) -> None:
        """TombolaError for a name that no recipe has."""
        known = {field.name for field in fields(Recipe)}
        for name in names:
            if name not in known:
                raise TombolaError(f"a recipe has no '{name}'; it has {', '.join(sorted(known))}")

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of optimizer step `step`, counted from 0 over the whole schedule.

        Examples:
            >>> recipe = Recipe(epochs=4, lr=1.0, schedule="multistep", milestones=(0.5,))
            >>> [recipe.lr_at(step, 1) for step in range(4)]
            [1.0, 1.0, 0.1, 0.1]
        """
        total, warmup = self.epochs * steps_per_epoch, self.warmup * steps_per_epoch
        if step < warmup:
            return self.lr * (step + 1) / (warmup + 1)
        done = step / total
        if self.schedule == "cosine" or (self.schedule == "one-cycle" and warmup):
            return self.lr * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1))) / 2
        if self.schedule == "cosine-by-epoch":
            fallen = max(step // steps_per_epoch - self.warmup, 0) / max(self.epochs - self.warmup, 1)
            return self.lr * (1 + math.cos(math.pi * fallen)) / 2
        if self.schedule == "multistep":
            return self.lr * self.gamma ** sum(done >= share for share in self.milestones)
        if self.schedule == "one-cycle":
            peak = 0.3
            if done < peak:
                return self.lr * (0.04 + 0.96 * (1 - math.cos(math.pi * done / peak)) / 2)
            return self.lr * (1 + math.cos(math.pi * (done - peak) / (1 - peak))) / 2
        return self.lr

    def begin(self, steps_per_epoch: int) -> int:
        """The step at which training starts."""
        return Step.parse(self.start).iterations(steps_per_epoch)

    def final_lr(self, steps_per_epoch: int) -> float:
        """The learning rate of the last step: what fine-tuning goes on with."""
        return self.lr_at(self.epochs * steps_per_epoch - 1, steps_per_epoch)

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer, fused where the device offers it."""
        trained = [p for p in parameters if p.requires_grad]
        fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in trained)
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                trained, self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov, fused=fused
            )
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(trained, self.lr, weight_decay=self.weight_decay, fused=fused)

    def resolved_precision(self, device: torch.device) -> Literal["float32", "bf16"]:
        """What `precision` comes to on a device."""
        if self.precision != "auto":
            return self.precision
        if device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
        return "bf16" if device.type == "cpu" and cpu_has_bf16() else "float32"

    def wants_channels_last(self, model: nn.Module) -> bool:
        """Whether this model's images and weights are laid out channels last."""
        if self.channels_last != "auto":
            return self.channels_last == "on"
        images = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        volumes = any(parameter.ndim == 5 for parameter in model.parameters())
        return bool(images) and not volumes and not any(map(_overruns, images))


def _overruns(layer: nn.Conv2d) -> bool:
    """Whether oneDNN 3.12 may write past its memory in this layer's backward pass, where channels come last.

    It does so for 1×1 convolutions with a stride and fewer than eight channels, on processors with AVX2 alone.
    """
    return layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.in_channels < 8
