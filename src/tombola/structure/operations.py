"""The rule of each of torch's operations: what it does with the channels of the tensors that it takes."""

from __future__ import annotations

import re
from typing import Any

import torch

from tombola.structure import rules_of_blocks, rules_of_layers  # noqa: F401 (they enter themselves)
from tombola.structure.rules import RULES, Rule, unknown
from tombola.structure.rules_of_elements import elementwise
from tombola.structure.rules_of_places import local


def rule_for(function: Any, name: str) -> Rule:
    """The rule of an operation.

    Args:
        function: the operation.
        name: its name, without its overload.
    """
    if name in RULES:
        return RULES[name]
    if torch.Tag.pointwise in function.tags:
        return elementwise
    if re.search(r"(pool|upsample\w*|reflection_pad|replication_pad)\d?d?", name):
        return local
    return unknown
