"""What a task is made from: the options of a command line, and the same options in the labels of a file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from tyro.conf import arg

from tombola import zoo
from tombola.errors import TombolaError
from tombola.files import printable_text
from tombola.registry import DATA, LOSSES, METRICS, MODELS
from tombola.studies.data_recipes import recipe_for
from tombola.training import Recipe

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


def labels_of(options: TaskOptions) -> dict[str, str]:
    """The options of a command line that makes the same task, without those that are defaults, by name."""
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


def task_title(labels: Mapping[str, Any]) -> str:
    """What a task is called: its data and model, and what differs from what is usual.

    Args:
        labels: the options by name, as in `SupervisedTask.labels`.

    Examples:
        >>> task_title({"data": "digits", "model": "vgg11", "recipe.epochs": "3", "recipe.no-compile": ""})
        'digits vgg11 epochs 3 no-compile'
    """
    others = (f"{key.removeprefix('recipe.')} {value}" for key, value in labels.items() if key not in ("data", "model"))
    return " ".join([*(str(labels[key]) for key in ("data", "model") if key in labels), *map(str.strip, others)])
