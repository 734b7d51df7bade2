"""Others' private parts are touched in the file that is meant for it and nowhere else, in bounded versions."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from tombola import TombolaError
from tombola.doors import Door
from tombola.structure import meta_device, tracer
from tombola.tickets import torch_private
from tombola.training import energy

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "tombola"
DOORS = [own.DOOR for own in (tracer, meta_device, torch_private, energy)]
ALLOWED = {*(own.file for own in DOORS), "tickets/wrappers.py"}
IN_SCORES = ("_foreach_", "_parameters")
"""What scores may call of torch by its own name; see tickets/torch_private.py."""
PUBLIC = {"_make", "_fields"}
"""What Python documents of named tuples, whose underscores keep their fields' names free."""


def private_parts(tree: ast.Module) -> list[str]:
    """Names with an underscore of what is not the file's own: attributes, also as getattr takes them, and imports."""
    found: list[str] = []
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name):
                found.append(name)
            case ast.Call(func=ast.Name(id="getattr" | "hasattr" | "setattr"), args=[_, ast.Constant(value=name), *_]):
                found.append(name)
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] not in (
                "tombola",
                "_typeshed",
            ):
                found += [*module.split("."), *(alias.name for alias in names)]
            case ast.Import(names=names):
                found += [part for alias in names for part in alias.name.split(".")]
    return [n for n in found if n.startswith("_") and not n.startswith("__") and n not in own | PUBLIC]


def test_private_parts_of_others_are_touched_in_adapters_alone():
    for file in SOURCE.rglob("*.py"):
        place = file.relative_to(SOURCE).as_posix()
        if place not in ALLOWED:
            ignored = IN_SCORES if place.startswith("scores/") else ()
            parts = [
                name
                for name in private_parts(ast.parse(file.read_text()))
                if not (ignored and name.startswith(ignored))
            ]
            assert not parts, f"{place} uses {parts}: let the adapter of that library do it, one of {sorted(ALLOWED)}"


def test_a_private_part_is_seen_however_it_is_reached():
    seen = "x._a; getattr(x, '_b', 0); from torch._c import d; import e._f; self._own; _g(x._g)\ndef _g(): ..."
    assert sorted(private_parts(ast.parse(seen))) == ["_a", "_b", "_c", "_f"]


def test_bounds_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {*project["dependencies"], *project["optional-dependencies"]["energy"]}
    for own in DOORS:
        assert f"{own.library}{own.tested}" in needed, f"pyproject.toml bounds {own.library} otherwise than {own.file}"
        assert (SOURCE / own.file).is_file()


def test_a_part_that_is_gone_is_one_sentence():
    door = Door("numpy", ">=2", "there/numpy.py")
    thing = SimpleNamespace(_inner=SimpleNamespace(_part=3))
    assert door.part(thing, "_inner._part") == 3
    with pytest.raises(TombolaError, match=r"^numpy [\d.]+ has no 'Thing\._inner\._gone' as Tombola's there"):
        door.part(thing, "_inner._gone", "Thing")
