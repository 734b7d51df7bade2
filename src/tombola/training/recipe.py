"""The recipe of a training: its settings, the learning rate of each step, and the optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Literal

import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.fields import LATER, check_fields
from tombola.tickets.torch_private import cpu_has_bf16
from tombola.training import optimizers
from tombola.training.hyperbolic import ham
from tombola.training.step import Step

FAR = 100
"""How many times as long as usual a file may let a network train."""
LARGEST = 10**9
"""Epochs, or samples a step, of a recipe."""


@dataclass(frozen=True)
class Recipe:
    """How a network trains.

    Args:
        epochs: length of the whole schedule.
        batch: samples a step.
        optimizer: sgd, adam, adamw, rmsprop, or another one of torch.optim by its name in small letters.
        lr: the highest learning rate.
        momentum: of sgd; the other optimizers have theirs among the options.
        nesterov: use Nesterov's momentum in sgd.
        weight_decay: added to the gradient; adamw, adafactor and muon shrink the weights instead.
        schedule: of the learning rate, which changes with each step, and in `cosine-by-epoch` with each epoch;
            `linear` falls in a line to 0, as transformers are fine-tuned.
        milestones: for `multistep`, the shares of all epochs at which the learning rate is multiplied by gamma.
        gamma: factor of `multistep` at each milestone.
        warmup: epochs in which the learning rate rises linearly before a cosine or a line falls. In `one-cycle` they
            replace its own rise, which takes three tenths of all epochs.
        label_smoothing: from 0 to 1; the task's loss must take it as an argument if it is not 0.
        augment: `crop` (4 pixels of padding) and `flip`, as batched tensor operations.
        precision: `auto` is bf16 autocast where the processor has it; `fp16` scales the loss, and needs a GPU.
        channels_last: memory layout of images; `auto` turns it on where it pays and the network can be used so,
            in networks with 2-D convolutions.
        compile: train the network through torch.compile.
        start: point of the schedule where training begins, as 500it or 10ep; a rewound ticket needs it.
        drop_last: leave out an epoch's last batch if it is not full.
        options: what else torch's optimizer takes, as betas=0.9,0.95 amsgrad=true. A dictionary becomes such words.
        clip: the largest norm of the gradient of all weights together; 0 clips nothing.
        clip_value: the largest size of each number in the gradient; 0 clips nothing.
        accumulate: batches whose gradients make one optimizer step, as one batch of their samples would.
        ema: how much of the average of the weights each step keeps, as 0.999. Less of it is kept in the first steps.
            The average is then the trained network, and what validation sees. 0 averages nothing.
        ham_alpha: α of HAM's multiplicative step after each step of the optimizer (`tb.training.ham`), as 200; with
            ham_beta also 0 there is none.
        ham_beta: β of that step, a decay, as 0.001.
        warmup_from: the learning rate from which a warm-up rises.

    Raises:
        TombolaError: naming the field, for a value that cannot be.

    Examples:
        >>> recipe = Recipe(epochs=20, batch=64, lr=0.05, warmup=1)
        >>> [round(recipe.lr_at(step, steps_per_epoch=100), 3) for step in (0, 100, 1999)]
        [0.0, 0.05, 0.0]
    """

    epochs: int = 10
    batch: int = 128
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "multistep", "constant", "one-cycle", "cosine-by-epoch", "linear"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    warmup: float = 0.0
    label_smoothing: float = 0.0
    augment: tuple[Literal["crop", "flip"], ...] = ()
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    channels_last: Literal["auto", "on", "off"] = "auto"
    compile: bool = False
    start: str = "0it"
    drop_last: bool = False
    options: tuple[str, ...] = field(default=(), metadata=LATER)
    clip: float = field(default=0.0, metadata=LATER)
    clip_value: float = field(default=0.0, metadata=LATER)
    accumulate: int = field(default=1, metadata=LATER)
    ema: float = field(default=0.0, metadata=LATER)
    ham_alpha: float = field(default=0.0, metadata=LATER)
    ham_beta: float = field(default=0.0, metadata=LATER)
    warmup_from: float = field(default=0.0, metadata=LATER)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", optimizers.as_words(self.options))
        check_fields(self, "recipe")
        optimizers.check_optimizer(self.optimizer, self.options)
        for name in self._unused:
            if getattr(self, name) != getattr(Recipe, name):
                raise TombolaError(
                    f"the recipe's {name} is not for {self.optimizer}; leave it out, or give the optimizer's options"
                )
        for name in ("epochs", "batch", "accumulate"):
            if getattr(self, name) < 1:
                raise TombolaError(f"the recipe's {name} is {getattr(self, name)}; give at least 1")
        for name in (
            "lr",
            "momentum",
            "weight_decay",
            "gamma",
            "warmup",
            "label_smoothing",
            "clip",
            "clip_value",
            "ema",
            "ham_alpha",
            "ham_beta",
            "warmup_from",
        ):
            if getattr(self, name) < 0:
                raise TombolaError(f"the recipe's {name} is {getattr(self, name)}; give a number of at least 0")
        for name in ("epochs", "batch", "accumulate"):
            if getattr(self, name) > LARGEST:
                raise TombolaError(f"the recipe's {name} is larger than any; give at most {LARGEST:,}")
        if len(self.milestones) * math.log10(max(self.gamma, 1.0)) > 100:  # as the power that a rate is multiplied by
            raise TombolaError(f"the recipe's gamma is {self.gamma}, and its learning rates become infinite; give less")
        if self.label_smoothing > 1:
            raise TombolaError(f"the recipe's label_smoothing is {self.label_smoothing}; give at most 1")
        if self.ema >= 1:
            raise TombolaError(f"the recipe's ema is {self.ema}; give less than 1, as 0.999")
        if not all(0 <= share <= 1 for share in self.milestones):
            raise TombolaError(
                f"the recipe's milestones are {self.milestones}; give shares of all epochs, from 0 to 1, as (0.5, 0.75)"
            )
        if self.nesterov and not self.momentum:
            raise TombolaError("the recipe asks for nesterov without momentum; set momentum, as 0.9")
        Step.parse(self.start)

    @property
    def longest(self) -> int:
        """The most epochs that a file may ask for where this is the usual recipe."""
        return FAR * max(10, self.epochs)

    @staticmethod
    def check_fields(names: Iterable[str]) -> None:
        """Raise TombolaError for a name that no recipe has."""
        known = {field.name for field in fields(Recipe)}
        for name in names:
            if name not in known:
                raise TombolaError(f"a recipe has no '{name}'; it has {', '.join(sorted(known))}")

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of one optimizer step.

        Args:
            step: counted from 0 over the whole schedule.
            steps_per_epoch: optimizer steps in an epoch.

        Examples:
            >>> recipe = Recipe(epochs=4, lr=1.0, schedule="multistep", milestones=(0.5,))
            >>> [recipe.lr_at(step, 1) for step in range(4)]
            [1.0, 1.0, 0.1, 0.1]
        """
        total, warmup = self.epochs * steps_per_epoch, self.warmup * steps_per_epoch
        if step < warmup:
            # + 1, so that the first step moves the weights
            return self.warmup_from + (self.lr - self.warmup_from) * (step + 1) / (warmup + 1)
        progress = step / total
        if self.schedule == "cosine" or (self.schedule == "one-cycle" and warmup):
            return self.lr * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1))) / 2
        if self.schedule == "linear":
            return self.lr * (total - step) / max(total - warmup, 1)
        if self.schedule == "cosine-by-epoch":
            fallen = max(step // steps_per_epoch - self.warmup, 0) / max(self.epochs - self.warmup, 1)
            return self.lr * (1 + math.cos(math.pi * fallen)) / 2
        if self.schedule == "multistep":
            return self.lr * self.gamma ** sum(progress >= share for share in self.milestones)
        if self.schedule == "one-cycle":
            peak = 0.3  # as in torch's OneCycleLR, and the first learning rate is its 1/25 too
            if progress < peak:
                return self.lr * (0.04 + 0.96 * (1 - math.cos(math.pi * progress / peak)) / 2)
            return self.lr * (1 + math.cos(math.pi * (progress - peak) / (1 - peak))) / 2
        return self.lr

    def begin(self, steps_per_epoch: int) -> int:
        """The step at which training starts, counted from 0 over the whole schedule."""
        return Step.parse(self.start).iterations(steps_per_epoch)

    def final_lr(self, steps_per_epoch: int) -> float:
        """The learning rate of the last step, with which fine-tuning goes on."""
        return self.lr_at(self.epochs * steps_per_epoch - 1, steps_per_epoch)

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the optimizer of the parameters that need gradients, fused where the device offers it."""
        trained = [p for p in parameters if p.requires_grad]
        own = {"lr": self.lr, "weight_decay": self.weight_decay}
        own |= {"momentum": self.momentum, "nesterov": self.nesterov} if self.optimizer == "sgd" else {}
        return self.with_ham(optimizers.make(self.optimizer, trained, own, self.options))

    def with_ham(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The optimizer itself, with HAM's step after each of its own if the recipe asks for it."""
        return ham(optimizer, self.ham_alpha, self.ham_beta) if self.ham_alpha or self.ham_beta else optimizer

    @property
    def _unused(self) -> tuple[str, ...]:
        """What only sgd uses, and of which others would not know; adam and adamw never minded."""
        if self.optimizer in ("sgd", "adam", "adamw"):
            return ()
        return ("momentum", "nesterov", *(("weight_decay",) if self.optimizer == "rprop" else ()))

    def steps(self, batches: int) -> int:
        """Optimizer steps in an epoch of so many batches."""
        return math.ceil(batches / self.accumulate)

    def resolved_precision(self, device: torch.device) -> Literal["float32", "bf16", "fp16"]:
        """The precision on a device: `precision` itself, or what `auto` stands for there; TombolaError for fp16 on a
        CPU.
        """
        if self.precision == "fp16" and device.type != "cuda":
            raise TombolaError("the recipe's precision fp16 needs a GPU; give bf16 or float32 here")
        if self.precision != "auto":
            return self.precision
        if device.type == "cuda":  # emulated bf16 works on older GPUs and is slow
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
        return "bf16" if device.type == "cpu" and cpu_has_bf16() else "float32"

    def wants_channels_last(self, model: nn.Module) -> bool:
        """Whether images and weights of this model shall lie channels last in memory, if it can be used so."""
        if self.channels_last != "auto":
            return self.channels_last == "on"
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        # The layout is for tensors of four dimensions, and moving a model of 3-D convolutions to it fails.
        volumes = any(parameter.ndim == 5 for parameter in model.parameters())
        return bool(convolutions) and not volumes and not any(map(_overruns, convolutions))


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """A context that computes in the recipe's precision on a device."""
    precision = recipe.resolved_precision(device)
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, kind, enabled=precision != "float32")


def _overruns(layer: nn.Conv2d) -> bool:
    """Whether oneDNN 3.12 may write past its memory in this layer's backward pass with channels last.

    It does so for 1×1 convolutions with a stride and fewer than eight input channels, on processors with AVX2 and no
    AVX-512.
    """
    return layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.in_channels < 8
