"""One network with an example, and independent checks of what is made of it."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from networks.architectures import CLASSES, Net
from tombola.structure import AllInDouble


class NotApplicable(Exception):
    """The job is not meant for this network."""


@dataclass
class Case:
    """One network, built anew by `model()` with the same stirred parameters."""

    name: str
    net: Net
    example: Any = field(init=False)
    other: Any = field(init=False)
    targets: Any = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(1)
        self.example = self.net.inputs(self.net.batch)
        self.other = self.net.inputs(self.net.batch + 1)
        torch.manual_seed(0)
        self._model = stirred(self.net.build())
        with torch.no_grad():
            out = main_of(call(copy.deepcopy(self._model).eval(), self.example))
        self.shape = tuple(out.shape)
        if self.net.kind == "image" or self.net.kind == "text":
            self.targets = torch.randint(0, CLASSES, (self.net.batch,))
        else:
            where = 1 if self.net.kind == "dense" else -1
            rest = [size for at, size in enumerate(out.shape) if at != where % out.ndim]
            self.targets = torch.randint(0, out.shape[where], rest)

    def model(self) -> Any:
        return copy.deepcopy(self._model)

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        return size_of(self.model(), self)

    def loss(self, outputs: Any, targets: Any) -> Any:
        out = main_of(outputs)
        if self.net.kind in ("causal", "seq2seq"):
            return F.cross_entropy(out.flatten(0, -2), targets.flatten())
        return F.cross_entropy(out, targets)

    @property
    def batches(self) -> list[Any]:
        return [(self.example, self.targets)]

    def probe(self, model: Any) -> Any:
        from tombola.scores.types import forward, suited

        return forward(model, suited(self.example, model))


def call(model: Any, inputs: Any) -> Any:
    return model(**inputs) if isinstance(inputs, dict) else model(inputs)


def main_of(outputs: Any) -> Any:
    """The tensor that a loss is about."""
    if isinstance(outputs, torch.Tensor):
        return outputs
    if isinstance(outputs, dict):
        return (
            outputs["logits"]
            if "logits" in outputs
            else outputs["out"]
            if "out" in outputs
            else next(iter(outputs.values()))
        )
    return (
        sum(outputs) / len(outputs)
        if getattr(outputs[0], "shape", 0) == getattr(outputs[-1], "shape", 1)
        else outputs[0]
    )


def stirred(model: Any) -> Any:
    """With no parameter or statistic at a value (0, 1, 1e-6) at which a wrong cut would not show."""
    with torch.no_grad():
        for own in model.parameters():
            if own.is_floating_point() and own.numel() > 1 and float(own.float().std()) < 1e-4:
                mean = float(own.float().mean())
                own.copy_((mean if mean > 0.1 else 0.0) + 0.1 * torch.randn_like(own))
                if own.ndim <= 1 and 0 < mean < 0.1:
                    own.add_(0.5)  # a layer scale
        for module in model.modules():
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.6, 1.4)
    return model


def masked_copy(model: Any, mask: Any) -> Any:
    """Our own masked network, not made by the product."""
    twin = copy.deepcopy(model)
    own = dict(twin.named_parameters())
    with torch.no_grad():
        for name in mask:
            own[name].mul_(mask[name])
    return twin


def as_double(inputs: Any) -> Any:
    """A tensor, or a dictionary of them, in float64 where they hold floating-point numbers."""
    if isinstance(inputs, dict):
        return {name: as_double(own) for name, own in inputs.items()}
    return inputs.double() if inputs.is_floating_point() else inputs


def gap_between(one: Any, other: Any, inputs: Any) -> float:
    """The largest difference of outputs in float64 and evaluation mode, relative to the largest output.

    Norms that compute in float32 of their own accord, as Llama's, compute in float64 too.
    """

    def run(model: Any) -> Any:
        twin = copy.deepcopy(model).double().eval()
        with torch.no_grad(), AllInDouble():
            return main_of(call(twin, as_double(inputs)))

    a, b = run(one), run(other)
    return float("inf") if a.shape != b.shape else float((a - b).abs().max() / a.abs().max().clamp(min=1e-30))


def size_of(model: Any, case: Case) -> tuple[int, int]:
    """(FLOPs of one forward call, parameters)."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:  # with gradients: without, it fails on networks that ask for some on the way (DeBERTa)
        call(model.eval(), case.example)
    return counter.get_total_flops(), sum(own.numel() for own in model.parameters())


class Wrong(Exception):
    """What came out is not what was promised."""


def check(truth: bool, what: str) -> None:
    if not truth:
        raise Wrong(what)
