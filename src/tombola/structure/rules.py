"""Rules: what an operation does with the channels of the tensors that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tombola.structure.marks import Marks
from tombola.structure.operation_calls import Call

Results = Iterable[Marks | None]
Rule = Callable[[Call], Results]

RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Say that a function is the rule of the operations of these names."""

    def put(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return put


def unknown(call: Call) -> Results:
    """Nothing is known about what it does."""
    call.lose()
    return [None] * len(call.results)
