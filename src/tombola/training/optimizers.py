"""The optimizers of torch.optim by name, and their options as plain words."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import LBFGS, Optimizer, SparseAdam

from tombola.errors import TombolaError, unknown

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    name.lower(): kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, Optimizer) and kind not in (Optimizer, LBFGS, SparseAdam)
}
"""Those that step without a closure and take dense gradients, by their names in small letters."""

IN_THE_RECIPE = ("lr", "weight_decay")
"""What a recipe says itself of every optimizer; of sgd also its momentum and nesterov."""
OF_NO_TRAINING = ("params", "capturable", "differentiable", "maximize")
"""What is no option here: it would break the training, or turn it round."""
WORDS = {"true": True, "false": False, "none": None}


def check_optimizer(name: str, options: Sequence[str]) -> None:
    """TombolaError unless there is such an optimizer and it takes these options."""
    if name not in OPTIMIZERS:
        if name.lower() == "lbfgs":
            raise TombolaError(
                "lbfgs calls the network several times a step, which a recipe does not do; take another optimizer, or "
                "train in your own loop under tb.attach"
            )
        raise unknown("recipe with optimizer", name, OPTIMIZERS)
    if not options:
        return
    values, known = values_of(options), _options_of(name)
    for option in values:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    weight = nn.Parameter(torch.ones(2, 2, device="cpu"))
    weight.grad = torch.ones(2, 2, device="cpu")
    try:  # Some values are looked at in the first step alone.
        OPTIMIZERS[name]([weight], lr=0.1, **values).step()
    except Exception as error:
        raise TombolaError(f"{name} cannot be made with the recipe's options {' '.join(options)}: {error}") from error


def _options_of(name: str) -> list[str]:
    said = {*IN_THE_RECIPE, *OF_NO_TRAINING, *(("momentum", "nesterov") if name == "sgd" else ())}
    return [option for option in inspect.signature(OPTIMIZERS[name]).parameters if option not in said]


def make(
    name: str, parameters: Sequence[nn.Parameter], settings: Mapping[str, Any], options: Sequence[str]
) -> Optimizer:
    """Make an optimizer, fused where its device offers that and no option says otherwise.

    Args:
        name: of the optimizer.
        parameters: those that it moves.
        settings: the recipe's own, of which the optimizer gets those that it takes.
        options: its options, as words.

    Raises:
        TombolaError: for muon, if one of the parameters is no matrix.
    """
    kind, values = OPTIMIZERS[name], values_of(options)
    if name == "muon" and (other := next((p for p in parameters if p.ndim != 2), None)) is not None:
        raise TombolaError(
            f"muon moves matrices alone, and a parameter of this network has the shape {tuple(other.shape)}; take "
            "another optimizer"
        )
    taken = inspect.signature(kind).parameters
    own = {key: value for key, value in settings.items() if key in taken}
    if name in ("sgd", "adam", "adamw") and not values.keys() & {"fused", "foreach"}:
        own["fused"] = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
    return kind(parameters, **own, **values)


def as_words(options: Any) -> tuple[str, ...]:
    """Options as words `name=value`, in the order of their names: those of a mapping, or such words brought into form.

    Examples:
        >>> as_words({"betas": (0.9, 0.95), "amsgrad": True}), as_words(["betas=.90,0.950"])
        (('amsgrad=True', 'betas=0.9,0.95'), ('betas=0.9,0.95',))
    """
    if isinstance(options, Mapping):
        options = [f"{name}={_text(value)}" for name, value in options.items()]
    if not isinstance(options, tuple | list) or not all(isinstance(word, str) and "=" in word for word in options):
        raise TombolaError(f"the recipe's options are {options!r}; give a mapping, or words as 'betas=0.9,0.95'")
    values = values_of(options)
    if len(values) < len(options):
        raise TombolaError(f"the recipe's options {' '.join(options)} name one option twice; leave one of them out")
    return tuple(f"{_text(name)}={_text(values[name])}" for name in sorted(values))


def values_of(options: Sequence[str]) -> dict[str, Any]:
    """The options by name.

    Examples:
        >>> values_of(("betas=0.9,0.95", "eps=1e-6", "foreach=none"))
        {'betas': (0.9, 0.95), 'eps': 1e-06, 'foreach': None}
    """
    pairs = (word.split("=", 1) for word in options)
    return {name.strip(): _value(text) for name, text in pairs}


def _value(text: str) -> Any:
    values = tuple(_number(part.strip()) for part in text.split(","))
    return values[0] if len(values) == 1 else values


def _number(text: str) -> int | float | bool | str | None:
    """A number, True, False or None; a text that is none of these as it is."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        raise TombolaError(f"the recipe's options hold {text}; give finite numbers")
    return number


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(_text, value))
    if hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, str | int | float | None) or (isinstance(value, str) and not value.isidentifier()):
        raise TombolaError(f"the recipe's options hold {value!r}; give numbers, True, False, None or one word")
    return str(value)
