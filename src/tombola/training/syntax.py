"""What a piece of code is, as text: its syntax, alike under every version of Python; the names that it looks up."""

from __future__ import annotations

import ast
import dis
import linecache
from collections.abc import Iterator
from functools import cached_property, lru_cache
from types import CodeType
from typing import Any

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (*DEFINITIONS, ast.ClassDef, ast.Module)
IGNORED = frozenset({"ctx", "type_comment", "kind", "annotation", "returns"})


def syntax_of(code: CodeType) -> str:
    """The syntax of a piece of code; its instructions where no source is to be had, or another one by now."""
    linecache.checkcache(code.co_filename)
    node = _read("".join(linecache.getlines(code.co_filename))).get(code)
    return _instructions(code) if node is None else "".join(_canonical(node))


@lru_cache(64)
def _read(source: str) -> _Source:
    return _Source(source)


class _Source:
    """The functions in the text of a file, by what they were compiled to."""

    def __init__(self, text: str) -> None:
        self._text = text

    def get(self, code: CodeType) -> ast.AST | None:
        """The syntax of this code; None where the text gives other code in its place."""
        if not self._text or code not in self._codes:
            return None
        found = [node for node in self._nodes if _starts(node) == code.co_firstlineno and _is(node, code)]
        return max(found, key=lambda node: _covered(node, code), default=None)

    @cached_property
    def _nodes(self) -> list[ast.AST]:
        return [node for node in ast.walk(ast.parse(self._text)) if isinstance(node, (*DEFINITIONS, ast.Lambda))]

    @cached_property
    def _codes(self) -> set[CodeType]:
        try:
            return set(_within(compile(self._text, "", "exec", dont_inherit=True)))
        except (SyntaxError, ValueError):
            return set()


def _within(code: CodeType) -> Iterator[CodeType]:
    """A piece of code and all that is nested in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _within(constant)


def _starts(node: ast.AST) -> int:
    return min([node.lineno, *(own.lineno for own in getattr(node, "decorator_list", ()))])  # ty: ignore


def _is(node: ast.AST, code: CodeType) -> bool:
    return getattr(node, "name", "<lambda>") == code.co_name


def _covered(node: ast.AST, code: CodeType) -> int:
    """How much of the code lies within the body of a node; tells apart the lambdas of one line."""
    body = node.body[0] if isinstance(node.body, list) else node.body  # ty: ignore
    last = node.body[-1] if isinstance(node.body, list) else node.body  # ty: ignore
    first, end = (body.lineno, body.col_offset), (last.end_lineno, last.end_col_offset)
    places = [(line, column) for line, _, column, _ in code.co_positions() if line and column is not None]
    return sum(first <= place < end for place in places) - len(places)


def _canonical(node: Any) -> Iterator[str]:
    """A syntax tree as text, alike under every version of Python."""
    if isinstance(node, ast.Constant):
        yield repr(node.value)
    elif isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                value = value[1:]
            if isinstance(node, ast.JoinedStr):  # in which 3.12 leaves empty texts
                value = [part for part in value if not (isinstance(part, ast.Constant) and part.value == "")]
            if name not in IGNORED and value is not None and value != []:
                yield f"{name}="
                yield from _canonical(value)
                yield ","
        yield ")"
    elif isinstance(node, list):
        for part in node:
            yield from _canonical(part)
            yield ";"
    else:
        yield repr(node)


def _instructions(code: CodeType) -> str:
    """Code without its source: its instructions and constants, sets in order, nested code included."""
    constants = [_constant(value) for value in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _instructions(value)
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(_constant, value)))}}}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    return repr(value)


def names_in(code: CodeType) -> set[str]:
    """All names that code and what is nested in it looks up."""
    return {name for own in _within(code) for name in own.co_names}


def globals_in(code: CodeType) -> list[str]:
    """The names of its module that code looks up; what it sets itself is its state, and no setting."""
    steps = [step for own in _within(code) for step in dis.get_instructions(own)]
    own = {step.argval for step in steps if step.opname == "STORE_GLOBAL"}
    return sorted({step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")} - own)


def imports_in(code: CodeType) -> list[tuple[str, int, tuple[str, ...]]]:
    """What code imports when it runs: the module, how many packages up, and what it takes from there."""
    found = set()
    for own in _within(code):
        steps = list(dis.get_instructions(own))
        for place, step in enumerate(steps):
            if step.opname == "IMPORT_NAME":  # after the level and the names
                found.add((step.argval, steps[place - 2].argval, steps[place - 1].argval or ()))
    return sorted(found)
