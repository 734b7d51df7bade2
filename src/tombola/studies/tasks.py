"""Tasks by the names of data and model, from the zoo or from the user's own code."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from torch import Tensor, nn
from tyro.conf import arg

from tombola import zoo
from tombola.errors import TombolaError
from tombola.files import printable_text
from tombola.registry import DATA, LOSSES, METRICS, MODELS, imported
from tombola.studies.data_range import data_range, range_of
from tombola.studies.data_recipes import MEASURES, recipe_for
from tombola.studies.own_weights import WithWeights, read_weights
from tombola.training import (
    AdversarialTask,
    Attack,
    MemoryBatches,
    Recipe,
    SupervisedTask,
    adversarial,
    binary_accuracy,
    binary_cross_entropy,
    first_of,
)

Share = Annotated[float, msgspec.Meta(gt=0, le=1024)]
Length = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Count = Annotated[int, msgspec.Meta(ge=0, le=4096)]
"""What a width, and other numbers of a file's task, can be."""

OWN_TEXTS = "texts:FILE.csv with the columns text and label"
OWN_DATA = 'package.module:function that returns {"train": (inputs, targets), "test": …}'
OWN_MEASURE = "package.module:function of outputs and targets"
OWN_MODEL = "package.module:function that returns a freshly initialised nn.Module"


@dataclass(frozen=True)
class TaskOptions:
    """What to learn.

    Args:
        width: hidden units of a named model, as a multiple of its own
        initialisation: how weights of VGG and ResNet start: kaiming-normal by fan-in in all layers, as in the papers'
            code; or by fan-out in convolutions alone, with narrow linear layers, as before version 2 of these models
        data_dir: the folder of a named data set's files, if they are not in the usual place; for images, of train/ and
            test/
        image_size: for images of your own: the side of the square that each is scaled and cut to, in pixels
        checkpoint: a file of trained weights that the network begins with: a state_dict that torch.save wrote, or
            safetensors
        hold_out: how many of the last classes to keep out of training and testing, to see whether they are told apart
        tokenizer: for texts: the folder of a tokenizer's files; if not given, that of a pretrained model or of MiniLM
        pieces: for texts: word pieces to read of each; those of the longest, at most 128, if not given
        task_loss: what training lowers; "" for the usual one of the data
        task_metric: what is measured; "" for the one that goes with the loss
        attack: of training inputs: steps from a random point (pgd), one step of ε (fgsm), one from a random point
            (fast); "" leaves them clean
        attack_epsilon: how far an attack may move each number of an input
        attack_units: what ε counts in: the way from the lowest to the highest value of the data, or the data's own
            numbers
        attack_steps: how many steps pgd takes
        data_range: the lowest and highest value of inputs, each one number or one for each channel, as 0 1 or
            -1,-2 1,2; for named data those of the training images if nothing is given
    """

    data: Annotated[str, arg(help=f"{', '.join(DATA)}; {OWN_TEXTS}; or {OWN_DATA}")] = "digits"
    model: Annotated[
        str, arg(help=f"{', '.join(MODELS)}; pretrained:DIR with a network of transformers; or {OWN_MODEL}")
    ] = "lenet-300-100"
    width: float = 1.0
    initialisation: zoo.Start = "fan-in"
    checkpoint: Path | None = None
    data_dir: Path | None = None
    image_size: int | None = None
    hold_out: int = 0
    tokenizer: Path | None = None
    pieces: int | None = None
    task_loss: Annotated[str, arg(help=f"{', '.join(LOSSES)}; or {OWN_MEASURE}")] = ""
    task_metric: Annotated[str, arg(help=f"{', '.join(METRICS)}; or {OWN_MEASURE}")] = ""
    attack: Literal["", "pgd", "fgsm", "fast"] = ""
    attack_epsilon: float = 8 / 255
    attack_units: Literal["share", "data"] = "share"
    attack_steps: int = 10
    data_range: tuple[str, ...] = ()
    recipe: Recipe = Recipe()


def default_options(words: Sequence[str]) -> TaskOptions:
    """The default options for the data set that a command line names, with its recipe.

    Args:
        words: the words of the command line.

    Examples:
        >>> default_options(["--data", "cifar10"]).recipe.epochs
        160
    """
    named = [value for word, value in pairwise(words) if word == "--data"]
    named += [word.removeprefix("--data=") for word in words if word.startswith("--data=")]
    data = named[-1] if named else TaskOptions.data
    return TaskOptions(data=data, recipe=recipe_for(data))


def options_from(labels: Mapping[str, Any], words: Sequence[str], trust: bool = False) -> TaskOptions:
    """The options of the task that a file names, as defaults for what is typed.

    A file chooses no code and no folder: where it names either and nothing is typed instead, it is refused.

    Args:
        labels: what the file says of its task, as `SupervisedTask.labels`; what is no option of a task is left out.
        words: what is typed; an option there goes before the file's.
        trust: take from the file data and models that are named as module:function, and folders.

    Raises:
        TombolaError: a label names code or a folder, or is no value that its option can have.
    """
    typed = {word.partition("=")[0].removeprefix("--").replace("_", "-") for word in words if word.startswith("--")}
    said = {key: printable_text(str(value)) for key, value in labels.items() if key not in typed}
    if not trust:
        _refuse_code_and_folders(said)
        if "recipe.compile" in said and "recipe.no-compile" not in typed:
            raise TombolaError(
                "the file's task is learnt with torch.compile, which starts a compiler here; type --recipe.compile or "
                "--recipe.no-compile"
            )
    usual = default_options(["--data", said["data"], *words] if "data" in said else words)
    named = {name: said.get(name, getattr(usual, name)) for name in ("data", "model")}
    try:
        asked = replace(
            usual,
            **named,
            width=msgspec.convert(said.get("width", usual.width), Share, strict=False),
            initialisation=msgspec.convert(said.get("initialisation", _start_then(said, usual)), zoo.Start),
            task_loss=said.get("task-loss", usual.task_loss),
            task_metric=said.get("task-metric", usual.task_metric),
            hold_out=msgspec.convert(said.get("hold-out", usual.hold_out), Count, strict=False),
            image_size=msgspec.convert(said.get("image-size", usual.image_size), Count | None, strict=False),
            attack=msgspec.convert(said.get("attack", usual.attack), Literal["", "pgd", "fgsm", "fast"]),
            attack_epsilon=msgspec.convert(said.get("attack-epsilon", usual.attack_epsilon), Length, strict=False),
            attack_units=msgspec.convert(said.get("attack-units", usual.attack_units), Literal["share", "data"]),
            attack_steps=msgspec.convert(said.get("attack-steps", usual.attack_steps), Count, strict=False),
            data_range=tuple(said["data-range"].split()) if "data-range" in said else usual.data_range,
            checkpoint=Path(said["checkpoint"]) if "checkpoint" in said else usual.checkpoint,
            data_dir=Path(said["data-dir"]) if "data-dir" in said else usual.data_dir,
            tokenizer=Path(said["tokenizer"]) if "tokenizer" in said else usual.tokenizer,
            pieces=msgspec.convert(said.get("pieces", usual.pieces), Count | None, strict=False),
            recipe=msgspec.convert(asdict(usual.recipe) | _recipe_fields(said), Recipe, strict=False),
        )
    except msgspec.ValidationError as error:
        raise TombolaError(
            f"the file's task has a value that no task has ({error}); type the option yourself"
        ) from error
    if asked.recipe.epochs > usual.recipe.longest and not trust:
        raise TombolaError(
            f"the file's task is learnt in {asked.recipe.epochs:,} epochs, and {asked.data} usually in "
            f"{usual.recipe.epochs:,}; type --recipe.epochs {asked.recipe.epochs} if that is meant"
        )
    return asked


def _start_then(said: Mapping[str, str], usual: TaskOptions) -> zoo.Start:
    """The start of a file's network that names none: files that name their model and no start are older than starts."""
    return "fan-out" if zoo.has_starts(said.get("model", "")) else usual.initialisation


def _refuse_code_and_folders(said: Mapping[str, str]) -> None:
    for key in ("data", "model", "task-loss", "task-metric"):
        if said.get(key, "").startswith((zoo.TEXTS, zoo.PRETRAINED)):
            raise TombolaError(
                f"the file's task has the {key} '{said[key]}', and a file chooses no path here; type --{key} "
                f"{shlex.quote(said[key])} with your copy, or --trust for all that the file names"
            )
        if ":" in said.get(key, ""):
            raise TombolaError(
                f"the file's task has the {key} '{said[key]}', which is code that would be imported and called; if you "
                f"know it, type --{key} {shlex.quote(said[key])}, or --trust for all that the file names"
            )
    for key, what in (("data-dir", "data"), ("tokenizer", "tokenizer"), ("checkpoint", "trained weights")):
        if key in said:
            raise TombolaError(
                f"the file's task has its {what} in '{said[key]}', and a file chooses no path here; type --{key} "
                "with that of your copy, or --trust for all that the file names"
            )


def _recipe_fields(said: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a recipe among labels, as texts but for switches."""
    values: dict[str, Any] = {}
    for field in fields(Recipe):
        key, default = field.name.replace("_", "-"), field.default
        if f"recipe.{key}" in said:
            text = said[f"recipe.{key}"]
            values[field.name] = True if isinstance(default, bool) else text
            if isinstance(default, tuple):
                values[field.name] = text.split()
        elif f"recipe.no-{key}" in said:
            values[field.name] = False
    return values


def make_task(options: TaskOptions) -> SupervisedTask | AdversarialTask:
    """The task that the options describe.

    Raises:
        TombolaError: if a name does not exist, or an object of the user's does not fit.

    Examples:
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
    labels, measures = _labels(options), _measures(options)
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


def _labels(options: TaskOptions) -> dict[str, str]:
    """The options of a command line that makes the same task, without those that are defaults."""
    labels = {"data": options.data, "model": options.model}
    if options.width != 1.0:
        labels["width"] = f"{options.width:g}"
    labels |= {"initialisation": options.initialisation} if zoo.has_starts(options.model) else {}
    labels |= {"task-loss": options.task_loss} if options.task_loss else {}
    labels |= {"task-metric": options.task_metric} if options.task_metric else {}
    labels |= {"checkpoint": str(options.checkpoint)} if options.checkpoint else {}
    labels |= {"data-dir": str(options.data_dir)} if options.data_dir else {}
    labels |= {"tokenizer": str(options.tokenizer)} if options.tokenizer else {}
    labels |= {"pieces": str(options.pieces)} if options.pieces else {}
    labels |= {"hold-out": str(options.hold_out)} if options.hold_out else {}
    labels |= {"image-size": str(options.image_size)} if options.image_size else {}
    usual = recipe_for(options.data)
    for field in fields(Recipe):
        value = getattr(options.recipe, field.name)
        if value != getattr(usual, field.name):
            key = field.name.replace("_", "-")
            if isinstance(value, bool):
                labels[f"recipe.{key if value else 'no-' + key}"] = ""
            else:
                labels[f"recipe.{key}"] = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return labels


def task_words(labels: Mapping[str, Any]) -> list[str]:
    """The words of a command line that makes a task.

    Args:
        labels: the options by name, as in `SupervisedTask.labels`.

    Examples:
        >>> task_words({"data": "digits", "recipe.epochs": "3"})
        ['--data', 'digits', '--recipe.epochs', '3']
    """
    words = []
    for key, value in labels.items():
        text = str(value)
        # Few options have several values; the spaces of others, as those of a path, stay.
        is_several = key.startswith("recipe.") or key == "data-range"
        words += [f"--{key}", *(text.split() if is_several else [text] if text else [])]
    return words


def _users_function(name: str, kind: str) -> Callable[..., Any]:
    """The user's function named as package.module:function, found from the current folder too."""
    function = imported(name, f"the {kind}")
    if not callable(function):
        raise TombolaError(
            f"the {kind} '{name}' is a {type(function).__name__}, not a function; give package.module:function"
        )
    return function
