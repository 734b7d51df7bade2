"""Tasks by the names of data and model, from the zoo or from the user's own code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tombola import zoo
from tombola.errors import TombolaError
from tombola.registry import imported
from tombola.studies.data_range import data_range, range_of
from tombola.studies.data_recipes import MEASURES
from tombola.studies.own_weights import WithWeights, read_weights
from tombola.studies.task_options import OWN_DATA, TaskOptions, labels_of
from tombola.training import (
    AdversarialTask,
    Attack,
    MemoryBatches,
    SupervisedTask,
    adversarial,
    binary_accuracy,
    binary_cross_entropy,
    first_of,
)


def make_task(options: TaskOptions) -> SupervisedTask | AdversarialTask:
    """The task that the options describe.

    Raises:
        TombolaError: if a name does not exist, or an object of the user's does not fit.

    Examples:
        >>> from dataclasses import replace
        >>> from tombola.studies import default_options
        >>> make_task(default_options(["--data", "digits"])).labels
        {'data': 'digits', 'model': 'lenet-300-100'}
        >>> task = make_task(replace(default_options(["--data", "digits"]), attack="fgsm"))
        >>> task.labels["data-range"], task.adversary.attack.steps
        ('-0.8124343156814575 1.847518801689148', 1)
    """
    task = _clean_task(options)
    if not options.attack:
        if options.data_range:
            raise TombolaError("--data-range is for an attack, and there is none; give --attack pgd, or leave it out")
        return task
    kinds = {"pgd": partial(Attack, steps=options.attack_steps), "fgsm": Attack.fgsm, "fast": Attack.fast}
    attack = kinds[options.attack](options.attack_epsilon, options.attack_units)
    typed = data_range(options.data_range) if options.data_range else None
    named = None if ":" in options.data else range_of(_example(task.data)[0])
    return adversarial(task, attack, data_range=typed or named)


def supervised_task(options: TaskOptions) -> SupervisedTask:
    """The task that the options describe, for a study that knows no attacks; TombolaError if they ask for one."""
    if options.attack or options.data_range:
        raise TombolaError("this study trains on clean inputs alone; leave --attack and --data-range out")
    return _clean_task(options)


def _clean_task(options: TaskOptions) -> SupervisedTask:
    """The task without an attack."""
    is_own = ":" in options.data and not options.data.startswith(zoo.TEXTS)
    data = _users_function(options.data, "data")() if is_own else _zoo_data(options)
    if not isinstance(data, Mapping) or not {"train", "test"} <= data.keys():
        raise TombolaError(
            f"the data '{options.data}' gave a {type(data).__name__}; give {OWN_DATA.partition(' that ')[2]}"
        )
    if options.hold_out:
        data = zoo.hold_out(data, options.hold_out)
    labels, measures = labels_of(options), _measures(options)
    values = None if options.checkpoint is None else read_weights(options.checkpoint)
    if ":" in options.model and not options.model.startswith(zoo.PRETRAINED):
        model = _with_weights(_users_function(options.model, "model"), options, values)
        return SupervisedTask(model, data, recipe=options.recipe, labels=labels, **measures)
    shape, classes = sizes_of(data)
    if _example(data)[1].is_floating_point():  # numbers that are told of texts
        measures = dict[str, Any](loss="mse", metric="r2") | measures
    # Partials of named functions, and no closures, so that the task can be pickled.
    narrower = partial(_zoo_model, options.model, shape, classes, options.width, start=options.initialisation)
    if options.model in zoo.SINGLE_OUTPUT and classes == 2 and "loss" not in measures:
        measures = dict[str, Any](loss=binary_cross_entropy, metric=binary_accuracy) | measures
    whole, recipe = _with_weights(narrower(1.0), options, values), options.recipe
    return SupervisedTask(whole, data, recipe=recipe, narrower=narrower, labels=labels, **measures)


def _with_weights(
    factory: Callable[[], nn.Module], options: TaskOptions, values: Mapping[str, Tensor] | None
) -> Callable[[], nn.Module]:
    """The factory, of networks that begin with the values that were asked for."""
    if values is None:
        return factory
    WithWeights(factory, str(options.checkpoint), values)()  # says now whether they fit
    return WithWeights(factory, str(options.checkpoint), values)


def _measures(options: TaskOptions) -> dict[str, Any]:
    """The loss and the metric that are asked for, if any: names of the registry, and the user's functions."""
    asked = {"loss": options.task_loss, "metric": options.task_metric}
    usual = MEASURES.get(options.data, {})
    chosen = {slot: name or usual.get(slot, "") for slot, name in asked.items()}
    return {slot: _users_function(name, slot) if ":" in name else name for slot, name in chosen.items() if name}


def tokenizer_folder(options: TaskOptions) -> Path | None:
    """The folder of the tokenizer that reads a task's texts; None where there are no texts.

    Args:
        options: name the data, the network, and a tokenizer if it is another one than the network's.

    Raises:
        TombolaError: it is that of MiniLM, which is not installed.
    """
    if options.tokenizer is not None or not options.data.startswith((zoo.TEXTS, "glue-", "vader")):
        return options.tokenizer
    if options.model.startswith(zoo.PRETRAINED):
        return Path(options.model.removeprefix(zoo.PRETRAINED))
    return zoo.minilm_folder()


def _zoo_data(options: TaskOptions) -> zoo.Data:
    tokenizer = tokenizer_folder(options)
    return zoo.data(options.data, options.data_dir, options.image_size, tokenizer=tokenizer, length=options.pieces)


def _zoo_model(
    name: str, shape: tuple[int, ...], classes: int, width: float, relative: float, start: zoo.Start = "fan-in"
) -> Callable[[], nn.Module]:
    return zoo.model(name, shape, classes, width * relative, start)


def sizes_of(data: Any) -> tuple[tuple[int, ...], int]:
    """The shape of an input, and how many classes there are; TombolaError for data that no named model takes.

    Args:
        data: by split.
    """
    inputs, targets = _example(data)
    tensors = isinstance(inputs, Tensor) and isinstance(targets, Tensor)
    if tensors and targets.is_floating_point() and targets.ndim == 2 and not inputs.is_floating_point():
        return tuple(inputs.shape[1:]), targets.shape[1]
    if not tensors or targets.is_floating_point():
        raise TombolaError(
            "a named model needs one input tensor and class numbers; give your own model as package.module:function"
        )
    return tuple(inputs.shape[1:]), int(targets.max()) + 1


def _example(data: Any) -> tuple[Any, Any]:
    """Inputs and targets of the training split: all of them where they are in memory, else the first batch."""
    whole = data["train"]
    if isinstance(whole, tuple) and len(whole) == 2 and all(isinstance(part, Tensor) for part in whole):
        return whole
    batches = SupervisedTask(nn.Identity, data).batches("train", 0, 0)
    return (batches.inputs, batches.targets) if isinstance(batches, MemoryBatches) else first_of(batches)


def _users_function(name: str, kind: str) -> Callable[..., Any]:
    """The user's function named as package.module:function, found from the current folder too."""
    function = imported(name, f"the {kind}")
    if not callable(function):
        raise TombolaError(
            f"the {kind} '{name}' is a {type(function).__name__}, not a function; give package.module:function"
        )
    return function
