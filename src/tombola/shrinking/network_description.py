"""What `network.json` says of a smaller network, checked: what was cut out of which whole one, and what builds that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from tombola.errors import TombolaError
from tombola.files import content_of, json_of
from tombola.shrinking.origin import Origin
from tombola.shrinking.plan import Plan
from tombola.shrinking.silent_layers import Silence
from tombola.shrinking.tokenizer_files import TOKENIZER
from tombola.structure import Count, Kept, Passing, Place, PlacedPart, Removed, is_count
from tombola.tickets import Mask

WEIGHTS, PRETRAINED = "weights.safetensors", "model.safetensors"
"""The file of the weights: as the whole network calls them, or as transformers saves them beside a `config.json`."""
FORMAT = 2


@dataclass(frozen=True)
class Description:
    """What `network.json` says.

    Args:
        cuts: what was cut out of the whole network; nothing if transformers opens the folder.
        weights: a fingerprint of the tensors.
        file: the name of the file of the weights.
        origin: how the whole network is built; None if by a class of the user's own. Where transformers opens the
            folder, its arguments are in `config.json`.
        inside: the name of the module, in the network that was shrunk, that is kept here; empty for all of it.
        facts: any further JSON.
        beside: the names of the files of a tokenizer or processor that were written beside it.
    """

    cuts: Plan
    weights: str
    file: str = WEIGHTS
    origin: Origin | None = None
    inside: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What is written."""
        return {
            "format": FORMAT,
            "facts": dict(self.facts),
            "kept": {name: {"inputs": own.inputs, "outputs": own.outputs} for name, own in self.cuts.kept.items()},
            "idle": list(self.cuts.idle),
            "passes": {name: asdict(passing) for name, passing in self.cuts.passes.items()},
            "silent": [asdict(part) for part in self.cuts.silent],
            "parts": [{"part": asdict(part), "removed": list(units)} for part, units in self.cuts.parts],
            "weights": self.weights,
            "file": self.file,
            "origin": None if self.origin is None else asdict(self.origin),
            "inside": self.inside,
            "beside": list(self.beside),
        }


def nothing_cut() -> Plan:
    """The plan of a network that is whole."""
    return Plan({}, (), Mask({}))


def inside_of(plan: Plan, name: str) -> Plan:
    """A plan with the names that things have within the module of this name, where all that is cut is.

    Args:
        plan: the plan of a network.
        name: the module's; empty for the network itself.
    """
    if not name:
        return plan
    start, within = len(name) + 1, f"{name}."

    def part_inside(part: PlacedPart) -> PlacedPart:
        return replace(
            part,
            name=part.name[start:],
            places=tuple(replace(place, tensor=place.tensor[start:]) for place in part.places),
            counts=tuple(
                replace(own, module=own.module[start:]) for own in part.counts if f"{own.module}.".startswith(within)
            ),
            freed=tuple(own[start:] for own in part.freed),
            owner=part.owner[start:],
            layers=tuple(own[start:] for own in part.layers),
        )

    return replace(
        plan,
        kept={own[start:]: channels for own, channels in plan.kept.items()},
        idle=tuple(own[start:] for own in plan.idle),
        parts=tuple((part_inside(part), units) for part, units in plan.parts),
        passes={own[start:]: passing for own, passing in plan.passes.items()},
        silent=tuple(
            Silence(tuple(own[start:] for own in part.makes), part.takes[start:], part.bias) for part in plan.silent
        ),
    )


def read_description(path: Path) -> Description:
    """The checked content of `network.json`.

    Raises:
        TombolaError: it is missing, damaged, of a newer version, or chooses what a file may not choose.
    """
    try:
        content = json_of(content_of(path))
        if content["format"] not in (1, FORMAT):
            raise ValueError(f"its format is {content['format']!r}, this version of Tombola reads up to {FORMAT}")
        kept = {name: _kept(channels) for name, channels in content["kept"].items()}
        idle = tuple(content.get("idle", []))
        if not all(isinstance(name, str) for name in idle):
            raise ValueError("it does not list idle blocks by name")
        parts = tuple((_part(own["part"]), tuple(map(_number, own["removed"]))) for own in content.get("parts", []))
        passes = {name: _passing(own) for name, own in content.get("passes", {}).items()}
        silent = tuple(_silence(own) for own in content.get("silent", []))
        file, inside, origin = content.get("file", WEIGHTS), content.get("inside", ""), content.get("origin")
        if file not in (WEIGHTS, PRETRAINED) or not isinstance(inside, str):
            raise ValueError("it does not name the file of the weights")
        facts, beside = dict(content.get("facts", {})), tuple(content.get("beside", ()))
        if not set(beside) <= set(TOKENIZER):
            raise ValueError("it does not name files of a tokenizer")
        cuts = Plan(kept, idle, Mask({}), parts=parts, passes=passes, silent=silent)
        own = None if origin is None else Origin(origin["library"], str(origin["name"]), dict(origin["arguments"]))
        return Description(cuts, str(content["weights"]), file, own, inside, facts, beside)
    except TombolaError as error:
        raise TombolaError(f"{path} is refused: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable(path, error) from error


def check_fits_units(parts: Removed, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse units that lie outside a network's tensors, before any of them is looked for."""
    sides = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    largest = max((side for shape in sides.values() for side in shape), default=0)
    for part, units in parts:
        for place in part.places:
            shape = sides.get(place.tensor)
            side = largest if shape is None else shape[place.dim] if place.dim < len(shape) else 0
            if place.start + part.size * place.inner * place.outer > side or max(units, default=0) >= part.size:
                raise TombolaError(
                    f"{folder} was cut out of another network ('{place.tensor}' has no such units); give a model of "
                    "the class and size that was shrunk"
                )


def _part(described: Mapping[str, Any]) -> PlacedPart:
    """A part as it is described, whose attributes are those that say how many units there are."""
    places = tuple(Place(**place) for place in described["places"])
    counts = tuple(Count(**count) for count in described["counts"])
    numbers = [described["size"], *(number for p in places for number in (p.dim, p.inner, p.outer, p.start))]
    numbers += [number for count in counts for number in (count.factor, count.base)]
    texts = [described["kind"], described["name"], described["owner"], *described["freed"], *described["layers"]]
    texts += [text for p in places for text in (p.tensor, p.role)] + [count.module for count in counts]
    if not all(map(is_count, (count.attribute for count in counts))) or not all(isinstance(t, str) for t in texts):
        raise ValueError("it sets what is no number of heads or neurons")
    for number in numbers:
        _number(number)
    changed: dict[str, Any] = {**described, "places": places, "counts": counts}
    changed |= {name: tuple(described[name]) for name in ("freed", "layers")}
    return PlacedPart(**changed)


def _passing(described: Mapping[str, Any]) -> Passing:
    names, returns = described["names"], described["returns"]
    texts = [returns] if isinstance(returns, str) else [own for own in returns if own is not None]
    if not all(isinstance(text, str) for text in [*names, *texts]):
        raise ValueError("it does not name the arguments of blocks")
    return Passing(tuple(names), returns if isinstance(returns, str) else tuple(returns))


def _silence(described: Mapping[str, Any]) -> Silence:
    makes, takes, bias = tuple(described["makes"]), described["takes"], described["bias"]
    if not all(isinstance(name, str) for name in (*makes, takes)) or not isinstance(bias, bool):
        raise ValueError("it does not name the layers of feed-forward parts")
    return Silence(makes, takes, bias)


def _number(value: Any) -> int:
    # `type` and not isinstance: JSON's true and false are integers in Python.
    if type(value) is not int or value < 0:
        raise ValueError("it does not list channels by number")
    return value


def _kept(channels: Mapping[str, Any]) -> Kept:
    inputs, outputs = channels["inputs"], channels["outputs"]
    return Kept(None if inputs is None else tuple(map(_number, inputs)), tuple(map(_number, outputs)))


def unreadable(path: Path, error: Exception) -> TombolaError:
    """The error for a file of a smaller network that cannot be read."""
    return TombolaError(f"cannot read {path}: {error}; give the folder that `tombola shrink --out` wrote")
