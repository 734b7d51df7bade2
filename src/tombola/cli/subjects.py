"""Reads what a command works on: a method with its settings, or a ticket's file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import field, fields, is_dataclass, make_dataclass, replace
from functools import reduce
from inspect import cleandoc
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from tyro.conf import arg

from tombola.cli.parse import SECTION, prose
from tombola.errors import TombolaError
from tombola.methods import Method, OneShot
from tombola.registry import METHODS, SCORES
from tombola.scores import Score
from tombola.structure import Prunable, granularity
from tombola.studies import TaskOptions, method_named, options_from
from tombola.tickets import Ticket

Include = Annotated[tuple[str, ...], arg(help="patterns of names: only these parameters may lose weights")]
Exclude = Annotated[tuple[str, ...], arg(help="patterns of names: these parameters lose no weights")]
Biases = Annotated[bool, arg(help="let the biases of prunable layers lose numbers too")]


def settings_class(method: Method) -> type:
    """A dataclass of a method's settings that tyro can read from the command line.

    The command line cannot set a field that holds None or another dataclass, such as a rule that stops a search, nor
    one that holds a function, such as a score of the user's own: such fields are left out.

    Args:
        method: its values become the defaults.

    Returns:
        The class; its docstring joins those of the method's class and its bases, with one `Args:` at the end.

    Examples:
        >>> [setting.name for setting in fields(settings_class(METHODS["random"]))][:3]
        ['density', 'granularity', 'scope']
    """
    hints, columns = get_type_hints(type(method)), []
    for setting in fields(method):  # ty: ignore[invalid-argument-type]
        value = getattr(method, setting.name)
        if isinstance(value, Prunable):
            columns += [("include", Include, value.include), ("exclude", Exclude, value.exclude)]
            columns.append(("biases", Biases, value.biases))
        elif setting.name == "granularity":
            columns.append((setting.name, str, value.name))
        elif is_dataclass(value):
            if fields(value):
                # An entry of the method's `Args:` would hide the text of the value's own class.
                kind = Annotated[type(value), arg(help=prose(type(value).__doc__))]  # ty: ignore[invalid-type-form]
                columns.append((setting.name, kind, value))
        elif not callable(value) and (value is not None or not any(map(is_dataclass, get_args(hints[setting.name])))):
            columns.append((setting.name, _plain(hints[setting.name]), value))
    settings = make_dataclass(
        type(method).__name__, [(name, kind, field(default=default)) for name, kind, default in columns], frozen=True
    )
    docstrings = [cleandoc(kind.__doc__ or "") for kind in type(method).__mro__ if is_dataclass(kind)]
    # tyro reads a single `Args:`, so the entries of all classes come together; of two for one name it shows the last.
    entries = [
        match[3].rstrip() for text in reversed(docstrings) for match in SECTION.finditer(text) if match[2] == "Args"
    ]
    settings.__doc__ = "\n".join(["\n\n".join(map(prose, docstrings)), *(["", "Args:"] if entries else []), *entries])
    return settings


def _plain(hint: Any) -> Any:
    """What the command line can say of an annotation: its members that are no dataclasses."""
    members = get_args(hint)
    if get_origin(hint) not in (Union, UnionType) or not any(map(is_dataclass, members)):
        return hint
    return reduce(or_, (own for own in members if not is_dataclass(own)))


def with_settings(method: Method, settings: Any) -> Method:
    """The method with other settings.

    Args:
        method: whose settings are replaced.
        settings: an instance of the class that `settings_class` made for the method.
    """
    values = {setting.name: getattr(settings, setting.name) for setting in fields(settings)}
    if "include" in values:
        chosen = {name: values.pop(name) for name in ("include", "exclude", "biases")}
        values["prunable"] = replace(method.prunable, **chosen)  # ty: ignore[missing-attribute]
    if "granularity" in values and values["granularity"] == method.granularity.name:
        del values["granularity"]  # which may have settings that its name does not say
    elif "granularity" in values:
        values["granularity"] = granularity(values["granularity"])
    return replace(method, **values)  # ty: ignore[invalid-argument-type]


def ticket_at(path: str) -> Ticket:
    """The ticket in a file, or in the folder that a run wrote."""
    location = Path(path)
    return Ticket.load(location / "ticket.safetensors" if os.path.isdir(location) else location)


def options_of(ticket: Ticket, words: Sequence[str]) -> TaskOptions:
    """The options of the task that a ticket was found on, as defaults for what is typed."""
    return options_from(ticket.provenance.task, words, trust="--trust" in words)


def is_ticket(word: str) -> bool:
    """Whether a word is the path of a ticket; the name of a method or score is none, even if a file has that name."""
    return (
        word not in METHODS
        and word not in SCORES
        and (os.path.exists(word) or "/" in word or word.endswith(".safetensors"))
    )


def first_word(words: Sequence[str], usage: str) -> tuple[str, list[str]]:
    """Splits the words of a command into the one that it works on and its options.

    Args:
        words: what was typed after the command's name.
        usage: how the command is typed, for the error.

    Returns:
        The first word, or "--help" if help was asked for, and the options.

    Raises:
        TombolaError: the first word is missing.

    Examples:
        >>> first_word(["snip", "--seed", "1"], "tombola find METHOD")
        ('snip', ['--seed', '1'])
    """
    if not words or words[0].startswith("-"):
        if words and words[0] in ("-h", "--help"):
            return "--help", []
        raise TombolaError(f"say what it works on: {usage}")
    return words[0], list(words[1:])


def first_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits the words of a command into those that it works on, which come first, and its options.

    Examples:
        >>> first_words(["imp", "snip", "--seeds", "3"])
        (['imp', 'snip'], ['--seeds', '3'])
    """
    split = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    return list(words[:split]), list(words[split:])


def score_named(name: str) -> Score:
    """A score of a trained network, by its name or module:name.

    Raises:
        TombolaError: there is none of that name, or it is a search of its own.
    """
    method = method_named(name)
    if not isinstance(method, OneShot):
        raise TombolaError(f"'{name}' is no score of a trained network; give one of `tombola methods scores`")
    return method.score
