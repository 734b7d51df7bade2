"""What stands at the top of the package: few names, and the earlier ones lead to today's."""

from __future__ import annotations

import inspect
from pkgutil import resolve_name

import pytest

import tombola as tb

RESERVED = {"sensitivity", "adversarial", "stability"}


def test_the_top_has_at_most_45_names():
    assert len({*tb.__all__, *RESERVED}) <= 45
    assert {*tb.__all__} <= {*dir(tb)}


@pytest.mark.parametrize("name", sorted(tb._MOVED))
def test_an_earlier_name_works_and_says_where_it_stands(name):
    place = tb._MOVED[name]
    with pytest.warns(FutureWarning, match=rf"tb\.{name} is now tb\.{place}"):
        assert getattr(tb, name) is resolve_name(f"tombola.{place}")
    package, _, last = place.partition(".")
    assert last in getattr(tb, package).__all__


def test_what_is_exported_is_there_and_says_what_it_is():
    silent = []
    for name in tb.__all__:
        module = getattr(tb, name)
        if inspect.ismodule(module):
            objects = {each: getattr(module, each) for each in module.__all__}
            spoken_of = {
                each: found for each, found in objects.items() if inspect.isclass(found) or inspect.isfunction(found)
            }
            silent += [f"{name}.{each}" for each, found in spoken_of.items() if not inspect.getdoc(found)]
    assert silent == []
