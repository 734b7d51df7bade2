"""The zoo: small models and real data, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from pathlib import Path

import psutil
import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.registry import DATA, MODELS
from tombola.zoo.bags import bag_of_words
from tombola.zoo.held_out import hold_out
from tombola.zoo.minilm import pretrained
from tombola.zoo.normalisation import Data, one_thread
from tombola.zoo.spiral_mlp import SPIRAL_WIDTH, spiral_block
from tombola.zoo.starts import Start
from tombola.zoo.text_tables import text_file
from tombola.zoo.word_pieces import TextWarning, minilm_folder

TEXTS, PRETRAINED = "texts:", "pretrained:"
"""How the name of a file of texts begins, and that of a folder with a pretrained network."""
SINGLE_OUTPUT = ("spiral-mlp",)
"""Models with a single output for two classes: the log-odds of the second."""


def model(
    name: str, input_shape: tuple[int, ...], classes: int, width: float = 1.0, start: Start = "fan-in"
) -> Callable[[], nn.Module]:
    """A factory of freshly initialised models.

    Args:
        name: a model of the registry, or `pretrained:DIR`.
        input_shape: of one sample, without the batch.
        classes: how many classes the model tells apart.
        width: hidden units or channels, as a multiple of the model's own.
        start: from which distribution the weights of VGG and ResNet start; the other models have one alone.

    Returns:
        A picklable function without arguments.

    Raises:
        TombolaError: if there is no such model, or it cannot take such inputs or this start.

    Examples:
        >>> build = model("lenet-300-100", (1, 28, 28), 10)
        >>> build()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    known: Callable[..., nn.Module] = (
        partial(pretrained, name.removeprefix(PRETRAINED)) if name.startswith(PRETRAINED) else MODELS[name]
    )
    factory = partial(known, input_shape, classes, width)
    if start != "fan-in":
        if not has_starts(name):
            raise TombolaError(
                f"{name} has one start alone; leave out --initialisation {start}, which is for VGG and ResNet"
            )
        factory = partial(known, input_shape, classes, width, start=start)
    # One is built here without memory or randomness, so that unfit inputs are refused at once.
    try:
        with torch.device("meta"):
            network = factory()
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        if isinstance(error, RuntimeError | TypeError) and "overflow" not in str(error).lower():
            raise
        raise _too_large(name, width) from error
    if 2 * sum(parameter.nbytes for parameter in network.parameters()) > psutil.virtual_memory().total:
        raise _too_large(name, width)
    return factory


def has_starts(name: str) -> bool:
    """Whether a model of the registry can start from several distributions.

    Examples:
        >>> has_starts("vgg11"), has_starts("lenet5")
        (True, False)
    """
    return name in MODELS and "start" in signature(MODELS[name]).parameters


def _too_large(name: str, width: float) -> TombolaError:
    return TombolaError(f"{name} at width {width:g} is larger than this machine's memory; give a smaller --width")


def data(
    name: str,
    folder: Path | str | None = None,
    size: int | None = None,
    *,
    tokenizer: Path | str | None = None,
    length: int | None = None,
) -> Data:
    """The splits of a data set; the same call gives the same tensors.

    Args:
        name: a data set of the registry, or `texts:PATH` for a file of your own.
        folder: where the files are, for data in files; if None, the usual places, or else a download.
        size: the side of the square that each image of a folder of your own is scaled and cut to, in pixels.
        tokenizer: the folder of a tokenizer's files, for texts; that of MiniLM if None.
        length: word pieces of each text, for texts.

    Returns:
        The splits "train" and "test", and for some data "validation", each (inputs, targets): images and signals are
        float32, word pieces int64; classes are int64, numbers float32.

    Raises:
        TombolaError: if there is no such data set, or its files are missing or damaged.

    Examples:
        >>> inputs, targets = data("digits")["train"]
        >>> inputs.shape, targets.shape
        (torch.Size([1438, 1, 8, 8]), torch.Size([1438]))
    """
    path = None if folder is None else Path(folder)
    if path is not None and not path.is_dir():
        raise TombolaError(f"there is no folder {path}; give the one that holds the data as --data-dir")
    needs = "a path" if name.startswith(TEXTS) else DATA.entry(name).needs
    load: Callable[..., Data] = text_file if name.startswith(TEXTS) else DATA[name]
    if needs == "a folder" and path is None:
        raise TombolaError("say where your images are: --data-dir DIR, with DIR/train/CLASS/ and DIR/test/CLASS/")
    if needs == "GLUE's folder" and path is None:
        raise TombolaError("say where GLUE's files are: --data-dir DIR, with a folder for each task, as DIR/SST-2")
    if needs != "a folder" and size is not None:
        raise TombolaError(f"{name} has images of one size or none; leave --image-size out")
    if needs in ("", "a path") and path is not None:
        raise TombolaError(f"{name} is not read from that folder; leave --data-dir out")
    arguments: dict[str, tuple[object, ...]] = {
        "a folder": (path, size),
        "files": (path,),
        "GLUE's folder": (path,),
        "a path": (name.removeprefix(TEXTS),),
    }
    options = {"tokenizer": tokenizer and Path(tokenizer), "length": length}
    takes = "tokenizer" in signature(load).parameters
    if not takes and (tokenizer is not None or length is not None):
        raise TombolaError(f"{name} holds no texts; leave --tokenizer and --pieces out")
    with one_thread():
        return load(*arguments.get(needs, ()), **(options if takes else {}))


__all__ = [
    "DATA",
    "MODELS",
    "PRETRAINED",
    "SINGLE_OUTPUT",
    "SPIRAL_WIDTH",
    "TEXTS",
    "Data",
    "Start",
    "TextWarning",
    "bag_of_words",
    "data",
    "has_starts",
    "hold_out",
    "minilm_folder",
    "model",
    "pretrained",
    "spiral_block",
    "text_file",
]
