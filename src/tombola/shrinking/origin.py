"""How a whole network is built again by its name: from Tombola's, timm's, torchvision's and transformers' own lists."""

from __future__ import annotations

import json
import math
import re
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import psutil
import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from tombola.errors import TombolaError, unknown
from tombola.registry import MODELS
from tombola.structure import own_random_state
from tombola.tickets import modules_of

Library = Literal["tombola", "timm", "torchvision", "transformers"]

ARGUMENTS = {
    "tombola": ("input_shape", "classes", "width"),
    "torchvision": ("num_classes", "image_size", "width_mult", "aux_logits", "aux_loss", "init_weights", "dropout"),
    "timm": ("num_classes", "in_chans", "img_size", "window_size", "global_pool", "drop_rate", "drop_path_rate"),
}
"""The arguments that a file may give. None of them names a file, an address or a function."""

CHOOSING = ("auto_map", "attn_implementation", "experts_implementation", "quantization_config", "custom_pipelines")
CHOOSING += ("backbone", "backbone_kwargs", "use_timm_backbone", "use_pretrained_backbone", "compression_config")
"""The fields of a configuration by which transformers would choose code or weights from elsewhere."""

LARGEST, MOST_LAYERS, MOST_TENSORS = 2**31, 4096, 20_000
"""The largest number in a file's arguments, the most layers that it may ask for, and the most parameters."""
NUMBERED = re.compile(r"(layers?|depths?|blocks|experts|stages)$")
"""The names of arguments that say how many parts a network has."""


@dataclass(frozen=True)
class Origin:
    """The whole network of which a smaller one was cut, by its name.

    Args:
        library: whose network it is: `torchvision`, `timm`, `transformers`, or `tombola` for the zoo's.
        name: of the network there; for transformers, of its class.
        arguments: what it is built with: `num_classes` and the like; for transformers, the fields of its configuration.

    Raises:
        TombolaError: the library is none of these, or there is an argument that a file may not give.

    Examples:
        >>> Origin("tombola", "lenet5", {"input_shape": (1, 28, 28), "classes": 10}).build().training
        True
    """

    library: Library
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.library not in get_args(Library):
            raise unknown("library", self.library, get_args(Library))
        allowed = ARGUMENTS.get(self.library)
        odd = [key for key in self.arguments if chooses(key) or (allowed is not None and key not in allowed)]
        if odd:
            raise TombolaError(
                f"a network of {self.library} is not built with '{odd[0]}' from a file, which must choose neither code "
                "nor weights from elsewhere; give the network itself"
            )
        _check_plain(self.arguments)

    def build(self, device: str = "cpu") -> nn.Module:
        """The whole network, as new.

        Args:
            device: `meta` for one without values.

        Raises:
            TombolaError: the library is missing or has no such network, or it is larger than this machine's memory.
        """
        make = BUILDERS[self.library](self.name, self.arguments)
        try:
            with own_random_state(torch.device("cpu")), _bounded(), torch.device(device), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return make()
        except TombolaError:
            raise
        except Exception as error:  # constructors refuse numbers in many ways
            raise TombolaError(
                f"{self.library} does not build '{self.name}' with these arguments ({_first_line(error)}); give the "
                "network itself, or install the version that it was saved with"
            ) from error


def origin_of(model: nn.Module, accepts: Callable[[Origin], bool]) -> Origin | None:
    """The origin of a network of timm or torchvision, or of what was cut out of it; None if none is accepted.

    Args:
        model: the network.
        accepts: whether the network that an origin builds is the right one.
    """
    module = type(model).__module__
    candidates = {"timm": _of_timm, "torchvision": _of_torchvision}.get(module.partition(".")[0])
    return next((own for own in candidates(model) if accepts(own)), None) if candidates is not None else None


def transformers_network(model: nn.Module) -> str | None:
    """The name of the module that is a network of transformers, outermost and the only one with tensors; None if none.

    Args:
        model: the network, which may hold it in a class of its user's own.
    """
    library: Any = sys.modules.get("transformers")
    if library is None:
        return None
    modules = modules_of(model)
    name = next((own for own, module in modules.items() if isinstance(module, library.PreTrainedModel)), None)
    if name is None or getattr(library, type(modules[name]).__name__, None) is not type(modules[name]):
        return None
    inside = {id(tensor) for tensor in (*modules[name].parameters(), *modules[name].buffers())}
    outside = [tensor for tensor in (*model.parameters(), *model.buffers()) if id(tensor) not in inside]
    return None if outside else name


def plain_config(config: Any) -> dict[str, Any]:
    """A configuration of transformers as JSON's values, without what chooses code or says where it came from."""
    return _without_choices(json.loads(config.to_json_string(use_diff=True)))


def chooses(key: str) -> bool:
    """Whether a field of a configuration chooses code or weights from elsewhere, also by its inner name.

    Examples:
        >>> chooses("auto_map"), chooses("_attn_implementation_internal"), chooses("hidden_size")
        (True, True, False)
    """
    return str(key).lstrip("_").removesuffix("_internal") in CHOOSING


def checked_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration that was received.

    Raises:
        TombolaError: they choose code or weights from elsewhere, or hold numbers that no network has.
    """
    _check_plain(fields)
    return _without_choices(fields)


def _without_choices(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_choices(value) if isinstance(value, Mapping) else value
        for key, value in fields.items()
        if not key.startswith("_") and key not in ("transformers_version", "dtype", "torch_dtype")
    }


def _check_plain(value: Any, key: str = "") -> None:
    """Refuse what is no plain value, numbers that no network has, and fields that choose code."""
    if isinstance(value, Mapping):
        for own, inner in value.items():
            if chooses(own) and inner:
                raise TombolaError(
                    f"the configuration chooses code or weights from elsewhere by '{own}', which a file may not; "
                    "remove the field if you know the network"
                )
            _check_plain(inner, str(own))
        return
    if isinstance(value, list | tuple):
        for inner in value:
            _check_plain(inner, key)
        return
    most = MOST_LAYERS if NUMBERED.search(key) else LARGEST
    if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= most):
        raise TombolaError(f"'{key}' is {value}, more than any network has; give the network itself")
    if not (value is None or isinstance(value, int | float | str)):
        raise TombolaError(f"'{key}' is a {type(value).__name__}, and no number or word")


@contextmanager
def _bounded() -> Generator[None]:
    """Inside, a network that is larger than the memory, or has absurdly many tensors, is not built to its end."""
    total, count, most = 0, 0, psutil.virtual_memory().total

    def count_up(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal total, count
        total, count = total + (0 if parameter is None else parameter.nbytes), count + 1
        if total > most or count > MOST_TENSORS:
            raise TombolaError("the network that the file describes is larger than this machine's memory")

    handle = register_module_parameter_registration_hook(count_up)
    try:
        yield
    finally:
        handle.remove()


def _of_tombola(name: str, arguments: Mapping[str, Any]) -> Callable[[], nn.Module]:
    entry = MODELS.own.get(name)
    if entry is None:
        raise unknown("model", name, MODELS.own)
    make, shape = MODELS[name], tuple(arguments.get("input_shape", ()))
    return lambda: make(shape, arguments.get("classes", 10), arguments.get("width", 1.0))


def _torchvision(name: str, arguments: Mapping[str, Any]) -> Callable[[], nn.Module]:
    models = _library("torchvision").models
    if name not in models.list_models():
        raise TombolaError(f"torchvision has no network '{name}'; install the version that it was saved with")
    backbone = {"weights_backbone": None} if "segmentation" in models.get_model_builder(name).__module__ else {}
    return lambda: models.get_model(name, weights=None, **backbone, **arguments)


def _timm(name: str, arguments: Mapping[str, Any]) -> Callable[[], nn.Module]:
    library = _library("timm")
    if not library.is_model(name) or ":" in name or "/" in name:
        raise TombolaError(f"timm has no network '{name}'; install the version that it was saved with")
    return lambda: library.create_model(name, pretrained=False, **arguments)


def transformers_class(origin: Origin) -> tuple[Any, Any]:
    """The class and the configuration of a network of transformers.

    Raises:
        TombolaError: transformers is missing, or has no such class or configuration.
    """
    library, fields = _library("transformers"), checked_config(origin.arguments)
    kind: Any = getattr(library, origin.name, None)
    if not isinstance(kind, type) or not issubclass(kind, library.PreTrainedModel):
        raise TombolaError(f"transformers has no network '{origin.name}'; install the version that it was saved with")
    model_type = fields.pop("model_type", None)
    if model_type != kind.config_class.model_type:
        raise TombolaError(f"the configuration is one of '{model_type}', and {origin.name} has another")
    try:
        return kind, kind.config_class(**fields)
    except Exception as error:  # configurations check their fields in many ways
        raise TombolaError(f"its configuration is refused by transformers ({_first_line(error)})") from error


def _transformers(name: str, arguments: Mapping[str, Any]) -> Callable[[], nn.Module]:
    kind, config = transformers_class(Origin("transformers", name, arguments))
    return lambda: kind(config)


BUILDERS: Mapping[str, Callable[[str, Mapping[str, Any]], Callable[[], nn.Module]]] = {
    "tombola": _of_tombola,
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": _transformers,
}


def _library(name: str) -> Any:
    try:
        return __import__(name)
    except (ImportError, RuntimeError) as error:
        raise TombolaError(f"the network is one of {name}, which is not installed; pip install {name}") from error


def _of_timm(model: Any) -> Iterator[Origin]:
    """What may have built a network of timm."""
    said = getattr(model, "pretrained_cfg", None)
    name = said.get("architecture") if isinstance(said, Mapping) else getattr(said, "architecture", None)
    if not isinstance(name, str):
        return
    usual = {"num_classes": getattr(model, "num_classes", 1000)}
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    sizes = [{}] if size is None else [{}, {"img_size": size[0] if size[0] == size[1] else list(size)}]
    first = next((own.in_channels for own in model.modules() if hasattr(own, "in_channels")), 3)
    for more in sizes:
        yield from (Origin("timm", name, usual | more | own) for own in ({}, {"in_chans": first}))


def _of_torchvision(model: nn.Module) -> Iterator[Origin]:
    """What may have built a network of torchvision: all constructors of its file."""
    models, module = _library("torchvision").models, type(model).__module__
    leaves = [own for own in model.modules() if hasattr(own, "out_features") or hasattr(own, "out_channels")]
    ends = [getattr(own, "out_features", None) or getattr(own, "out_channels", None) for own in leaves]
    size = getattr(model, "image_size", None)
    arguments = {"num_classes": getattr(model, "num_classes", ends[-1] if ends else 1000)}
    arguments |= {} if size is None else {"image_size": size}
    for name in models.list_models():
        if models.get_model_builder(name).__module__ == module:
            yield Origin("torchvision", name, arguments)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
