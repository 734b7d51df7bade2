"""What a command is about: a method with its settings, a ticket's file, or the dense network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field, fields, is_dataclass, make_dataclass, replace
from inspect import cleandoc
from pathlib import Path
from typing import Any, get_args, get_type_hints

from tombola.errors import TombolaError, unknown
from tombola.methods import Method, OneShot, blocks_removed, label_of, removing
from tombola.registry import METHODS, SCORES, imported
from tombola.structure import Prunable, granularity
from tombola.tickets import Ticket


def settings_class(method: Method) -> type:
    """A dataclass of a method's settings as the command line can take them, with the method's own as defaults.

    A setting that is another dataclass or None, as what stops a search, is for Python alone.
    """
    hints, columns = get_type_hints(type(method)), []
    for own in fields(method):  # ty: ignore[invalid-argument-type]
        value = getattr(method, own.name)
        if isinstance(value, Prunable):
            columns += [("include", tuple[str, ...], value.include), ("exclude", tuple[str, ...], value.exclude)]
        elif own.name == "granularity":
            columns.append((own.name, str, value.name))
        elif is_dataclass(value):
            if fields(value):
                columns.append((own.name, type(value), value))
        elif value is not None or not any(map(is_dataclass, get_args(hints[own.name]))):
            columns.append((own.name, hints[own.name], value))
    made = make_dataclass(
        type(method).__name__, [(name, kind, field(default=default)) for name, kind, default in columns], frozen=True
    )
    nested = [name for name, kind, _ in columns if is_dataclass(kind)]
    made.__doc__ = _joined_docs([kind for kind in type(method).__mro__ if is_dataclass(kind)], nested)
    return made


def _joined_docs(kinds: Sequence[type], nested: Sequence[str]) -> str:
    """What docstrings say before their `Args:`, and then all their `Args:`, from which each option gets its help.

    Settings that are dataclasses have no entry, so that their own docstrings are shown.
    """
    texts, entries = [], []
    for kind in kinds:
        text, *sections = re.split(r"^(Args|Raises|Examples):\n", cleandoc(kind.__doc__ or ""), flags=re.MULTILINE)
        texts.append(text.strip())
        entries += [body.rstrip() for title, body in zip(sections[::2], sections[1::2], strict=True) if title == "Args"]
    # Of a setting that two classes describe, tyro shows the last description: that of the class itself.
    joined = "\n".join(reversed(entries))
    for name in nested:
        joined = re.sub(rf"^    {name}:.*\n?(?: {{5,}}.*\n?)*", "", joined, flags=re.MULTILINE)
    return "\n\n".join([*texts, f"Args:\n{joined}"])


def with_settings(method: Method, settings: Any) -> Method:
    """The method with what `settings_class` took."""
    values = {own.name: getattr(settings, own.name) for own in fields(settings)}
    if "include" in values:
        values["prunable"] = Prunable(include=values.pop("include"), exclude=values.pop("exclude"))
    if "granularity" in values:
        values["granularity"] = granularity(values["granularity"])
    return replace(method, **values)  # ty: ignore[invalid-argument-type]


def method_named(word: str) -> Method:
    """The method that a word names: one of the registry, a score by which one is made, or the user's module:name."""
    if word in METHODS:
        return METHODS[word]
    if word in SCORES:
        return OneShot(score=SCORES[word])
    if ":" not in word:
        raise unknown("method", word, METHODS)
    own = imported(word, "the method or score")
    own = own() if isinstance(own, type) else own
    if hasattr(own, "find"):
        if not is_dataclass(own):
            raise TombolaError(f"the method '{word}' is no dataclass; put @dataclass(frozen=True) before its class")
        return own
    if callable(own):
        return OneShot(score=own)
    raise TombolaError(f"'{word}' is a {type(own).__name__}; name a score (a function) or a method (with find)")


def at_size(method: Method, density: float | None, remove: int | None) -> Method:
    """The method, keeping this share of its units or removing so many blocks; as it is if neither is given."""
    if remove is not None:
        return removing(method, remove)
    if density is None:
        return method
    if blocks_removed(method) is not None:
        raise TombolaError(f"'{label_of(method)}' counts the blocks that go; give --remove 3 instead of a density")
    if not 0 < density <= 1:
        raise TombolaError(f"density is {density}; give the share of weights to keep, above 0 and at most 1")
    return replace(method, density=density)  # ty: ignore[invalid-argument-type]


def ticket_at(path: str) -> Ticket:
    """The ticket in a file, or in a run's folder."""
    place = Path(path)
    return Ticket.load(place / "ticket.safetensors" if place.is_dir() else place)


def is_ticket(word: str) -> bool:
    return (
        word not in METHODS
        and word not in SCORES
        and (Path(word).exists() or "/" in word or word.endswith(".safetensors"))
    )


def first_word(words: Sequence[str], what: str) -> tuple[str, list[str]]:
    """A command's subject and the rest; TombolaError if it is missing."""
    if not words or words[0].startswith("-"):
        if words and words[0] in ("-h", "--help"):
            return "--help", []
        raise TombolaError(f"say what: {what}")
    return words[0], list(words[1:])


def first_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command's subjects, which stand before its first option, and the rest."""
    split = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    return list(words[:split]), list(words[split:])
