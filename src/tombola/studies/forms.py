"""A network in each form in which it can be shipped: dense, masked, smaller, exported, in eight bits, sparse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.nested import samples_in
from tombola.registry import lower_is_better
from tombola.scores import Inputs
from tombola.shrinking import Int8, OnnxNetwork, to_int8, to_onnx
from tombola.sparse_inference import interleaved
from tombola.tickets import Mask, copied, zero_dead
from tombola.training import SampleFlops, Split, Task, evaluate, first_of, metric_of, pairs_of, pick

BATCHES = (1, 16)
"""The numbers of samples in a call for which latency is measured."""
COUNTED = 8
"""Samples whose FLOPs are counted."""
INT8: tuple[Int8, ...] = ("dynamic", "static")


@dataclass(frozen=True, eq=False)
class Form:
    """One form of a network.

    Args:
        name: `dense`, `masked`, `small`, `dense onnx`, `onnx`, `int8 dynamic`, `int8 static` or `sparse`.
        network: what is called.
        parameters: how many numbers it has that are not zero.
        bytes: of its file, or of its tensors.
        flops: of a forward pass of one sample; None where they are not counted.
        metric: on the test split; None where nothing was trained.
        seconds: of a call with so many samples.
    """

    name: str
    network: nn.Module
    parameters: int
    bytes: int
    flops: float | None
    metric: float | None = None
    seconds: Mapping[int, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The figures, as JSON's types."""
        figures = {name: getattr(self, name) for name in ("name", "parameters", "bytes", "flops", "metric")}
        return figures | {"latency": {str(samples): seconds for samples, seconds in self.seconds.items()}}


def form_of(name: str, network: nn.Module, task: Task, metric: float | None = None) -> Form:
    """A form that PyTorch computes.

    Args:
        name: the form's.
        network: on the CPU.
        task: gives the sample whose FLOPs are counted.
        metric: on the test split.
    """
    tensors = [*network.parameters(), *network.buffers()]
    batch = first_of(task.batches("test", 0, 0))
    few = (some_of(batch[0], COUNTED), some_of(batch[1], COUNTED))
    flops = SampleFlops.measure(task, network, few if samples_in(few[0]) == samples_in(few[1]) else batch).forward
    return Form(name, network, _filled(network), sum(tensor.nbytes for tensor in tensors), flops, metric)


def _filled(network: nn.Module) -> int:
    """How many parameters are not zero."""
    return sum(int(parameter.count_nonzero()) for parameter in network.parameters())


def masked_form(dense: Form, mask: Mask, metric: float) -> Form:
    """The masked form of a dense network, which computes with its zeros.

    Args:
        dense: the dense form.
        mask: which weights stay.
        metric: on the test split.
    """
    network = copied(dense.network)
    zero_dead(network, mask)
    return replace(dense, name="masked", network=network, parameters=_filled(network), metric=metric)


def exported(path: Path, like: Form, task: Task) -> Form:
    """The form in an ONNX file, measured on the test split.

    Args:
        path: of the file.
        like: the form that was exported.
        task: gives the test split.
    """
    network = OnnxNetwork(path)
    metric, _, _ = evaluate(task, network, "test", task.recipe)
    return replace(like, name="onnx", network=network, bytes=path.stat().st_size, metric=metric)


def dense_export(dense: Form, example: Inputs, folder: Path) -> tuple[Form, ...]:
    """The dense form in an ONNX file, beside which that of the smaller network is timed; none if it cannot be exported.

    Args:
        dense: the dense form.
        example: a batch of a few samples.
        folder: where the file is written.
    """
    path = folder / "dense.onnx"
    try:
        to_onnx(dense.network, example, path)
    except TombolaError:
        return ()
    return (replace(dense, name="dense onnx", network=OnnxNetwork(path), bytes=path.stat().st_size),)


@dataclass(frozen=True, eq=False)
class Eight:
    """What came of eight bits.

    Args:
        forms: both quantisations, measured.
        chosen: the one that is kept; None if neither is faster than the float file.
        validation: the metric on the validation split, by form, that of the float file as `onnx`.
        why: why neither is kept.
    """

    forms: tuple[Form, ...]
    chosen: Form | None
    validation: Mapping[str, float]
    why: str = ""


def eight_bits(path: Path, floating: Form, task: Task, folder: Path, batch: Inputs) -> Eight:
    """Quantise an exported network in both ways of ONNX Runtime, and choose by accuracy between those that are faster.

    A way is faster if it is with 1 sample a call or with 16. The validation split calibrates, and chooses; of two that
    are as accurate, the faster one is taken. Without a validation split, samples of the training split calibrate.

    Args:
        path: of the float file.
        floating: its form.
        task: gives the splits.
        folder: where both are written, as `dynamic.onnx` and `static.onnx`.
        batch: inputs with which calls are timed.

    Raises:
        TombolaError: neither way can quantise the network.
    """
    split: Split = "validation" if any(True for _ in task.batches("validation", 0, 0)) else "train"
    validation = {"onnx": evaluate(task, floating.network, split, task.recipe)[0]}
    forms, errors = [floating], list[str]()
    for kind in INT8:
        target = folder / f"{kind}.onnx"
        try:
            to_int8(path, target, kind, (inputs for inputs, _ in pairs_of(task.batches(split, 0, 0))))
            form = replace(exported(target, floating, task), name=f"int8 {kind}")
        except TombolaError as error:
            errors.append(str(error))
            continue
        validation[form.name] = evaluate(task, form.network, split, task.recipe)[0]
        forms.append(form)
    if len(forms) == 1:
        raise TombolaError(errors[0])
    plain, *eights = timed(forms, task, batch)
    gains = {form.name: {n: plain.seconds[n] / form.seconds[n] for n in plain.seconds} for form in eights}
    faster = [form for form in eights if max(gains[form.name].values(), default=0) > 1]
    sign = -1 if lower_is_better(metric_of(task)) else 1
    chosen = max(faster, key=lambda own: (sign * validation[own.name], max(gains[own.name].values())), default=None)
    why = "; ".join(
        f"{name} took "
        + " and ".join(f"{1 / gain:.1f} × its time with {n} sample{'s' * (n > 1)} a call" for n, gain in own.items())
        for name, own in gains.items()
    )
    return Eight(tuple(eights), chosen, validation, "" if chosen is not None else why)


def some_of(inputs: Inputs, samples: int) -> Inputs:
    """So many samples of a batch, repeated if it has fewer; the batch as it is where none can be taken out of it.

    Args:
        inputs: the batch.
        samples: how many to take.
    """
    try:
        return pick(inputs, torch.arange(samples) % max(1, samples_in(inputs) or 1))
    except TombolaError:  # a PackedSequence
        return inputs


def timed(forms: Sequence[Form], task: Task, inputs: Inputs) -> tuple[Form, ...]:
    """The forms with the seconds of a call, taken in turns, on the CPU with torch's number of threads.

    Args:
        forms: the forms, on the CPU.
        task: calls a network.
        inputs: a batch; if it is smaller than a call, its samples are repeated; of a PackedSequence, only
            calls with all samples can be timed.
    """
    seconds: list[dict[int, float]] = [{} for _ in forms]
    for samples in BATCHES:
        given = some_of(inputs, samples)
        if (samples_in(given) or samples) != samples:
            continue
        calls = {str(at): partial(_call, task, form.network.eval(), given) for at, form in enumerate(forms)}
        for at, taken in interleaved(calls).items():
            seconds[int(at)][samples] = taken
    return tuple(replace(form, seconds=own) for form, own in zip(forms, seconds, strict=True))


@torch.inference_mode()
def _call(task: Task, network: nn.Module, inputs: Inputs) -> Any:
    return task.forward(network, inputs)
