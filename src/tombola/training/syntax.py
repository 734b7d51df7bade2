"""A piece of code as text: its syntax, which is the same under every version of Python, and the names it looks up."""

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
    """The syntax of a piece of code, as text.

    Args:
        code: a function's `__code__`.

    Returns:
        Its syntax tree; its instructions if there is no source, or the source has changed since it was compiled.
    """
    linecache.checkcache(code.co_filename)
    node = _parsed("".join(linecache.getlines(code.co_filename))).find(code)
    return _instructions(code) if node is None else "".join(_canonical(node))


@lru_cache(64)
def _parsed(source: str) -> _Source:
    return _Source(source)


class _Source:
    """The text of a file, in which functions are found by their compiled code."""

    def __init__(self, text: str) -> None:
        self._text = text

    def find(self, code: CodeType) -> ast.AST | None:
        """The syntax of this code; None if the text does not compile to it."""
        if not self._text or code not in self._codes:
            return None
        nodes = [node for node in self._nodes if _first_line(node) == code.co_firstlineno and _has_name(node, code)]
        return max(nodes, key=lambda node: _coverage(node, code), default=None)

    @cached_property
    def _nodes(self) -> list[ast.AST]:
        return [node for node in ast.walk(ast.parse(self._text)) if isinstance(node, (*DEFINITIONS, ast.Lambda))]

    @cached_property
    def _codes(self) -> set[CodeType]:
        try:
            # dont_inherit: this file's own `from __future__ import annotations` would change what is compiled.
            return set(_nested(compile(self._text, "", "exec", dont_inherit=True)))
        except (SyntaxError, ValueError):
            return set()


def _nested(code: CodeType) -> Iterator[CodeType]:
    """A piece of code and all code nested in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _first_line(node: ast.AST) -> int:
    """The line where a definition begins; compiled code counts its decorators too."""
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])  # ty: ignore


def _has_name(node: ast.AST, code: CodeType) -> bool:
    return getattr(node, "name", "<lambda>") == code.co_name


def _coverage(node: ast.AST, code: CodeType) -> int:
    """Minus the number of instructions outside the body of a node; tells apart the lambdas of one line."""
    body = node.body[0] if isinstance(node.body, list) else node.body  # ty: ignore
    last = node.body[-1] if isinstance(node.body, list) else node.body  # ty: ignore
    first, end = (body.lineno, body.col_offset), (last.end_lineno, last.end_col_offset)
    places = [(line, column) for line, _, column, _ in code.co_positions() if line and column is not None]
    return sum(first <= place < end for place in places) - len(places)


def _canonical(node: Any) -> Iterator[str]:
    """A syntax tree as text, the same under every version of Python; docstrings and annotations are left out."""
    if isinstance(node, ast.Constant):
        yield repr(node.value)
    elif isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                value = value[1:]
            if isinstance(node, ast.JoinedStr):  # Python 3.12 leaves empty texts in f-strings
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
    """Code without a source as text: its instructions and constants, nested code included."""
    constants = [_constant(value) for value in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _instructions(value)
    if isinstance(value, frozenset):  # its own order changes with the hash seed
        return f"{{{', '.join(sorted(map(_constant, value)))}}}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    return repr(value)


def names_in(code: CodeType) -> set[str]:
    """All names that a piece of code looks up, nested code included."""
    return {name for part in _nested(code) for name in part.co_names}


def globals_in(code: CodeType) -> list[str]:
    """The global names that code looks up, without those that it sets: they are its state, and no setting."""
    instructions = [instruction for part in _nested(code) for instruction in dis.get_instructions(part)]
    stored = {step.argval for step in instructions if step.opname == "STORE_GLOBAL"}
    return sorted({step.argval for step in instructions if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")} - stored)


def imports_in(code: CodeType) -> list[tuple[str, int, tuple[str, ...]]]:
    """The imports that code makes when it runs: module, level (dots of a relative import), names taken from it."""
    imports = set()
    for part in _nested(code):
        instructions = list(dis.get_instructions(part))
        for place, instruction in enumerate(instructions):
            if instruction.opname == "IMPORT_NAME":  # the two instructions before it load the level and the names
                level, names = instructions[place - 2].argval, instructions[place - 1].argval
                imports.add((instruction.argval, level, names or ()))
    return sorted(imports)
