"""Whether an expectation can hold, and can fail, at all: as far as the protocol shows it before anything runs."""

from __future__ import annotations

import math
from functools import partial

from tombola.evidence.statistics import half_width
from tombola.methods import Method
from tombola.methods.early_bird import EarlyBird
from tombola.papers.claims import measures
from tombola.papers.claims.claim import Claim, ClaimArm, Level, Protocol
from tombola.papers.claims.claim_outcome import Expectation
from tombola.structure import SeparateChannels


def obstacles(claim: Claim, level: Level = "standard") -> list[str]:
    """Why expectations of a claim cannot hold, or cannot fail, whatever comes out; none if they can.

    Arms that are constant, figures that a window or the end of training limits, and steps too coarse for the effect
    are seen. A claim of a theorem may have arms that cannot differ.

    Args:
        claim: the claim.
        level: which of its protocols.
    """
    protocol = claim.protocols[level]
    if not isinstance(protocol, Protocol):
        return []
    return [f"{own}: {why}" for own in claim.expected_of(level) if (why := _obstacle(own, protocol))]


def _obstacle(expected: Expectation, protocol: Protocol) -> str:
    left, right = protocol.arms[expected.left], protocol.arms[expected.right]
    if _same(left, right):
        return "both arms are the same runs, measured in the same way"
    least, most = _difference(_range(left, protocol), _range(right, protocol))
    limit = 0.0 if expected.relation == ">" else -expected.margin_in(left.unit)
    if most <= limit if expected.relation == ">" else most < limit:
        return f"it cannot hold: the difference is at most {left.unit.amount(most)}"
    if least > limit:
        return f"it cannot fail: the difference is at least {left.unit.amount(least)}"
    return _too_coarse(expected, left, protocol)


def _same(left: ClaimArm, right: ClaimArm) -> bool:
    def what(arm: ClaimArm) -> tuple[str, ...]:
        return tuple(map(repr, (arm.method, arm.control, arm.variants, arm.extra_epochs, arm.measured)))

    return what(left) == what(right)


def _difference(left: tuple[float, float], right: tuple[float, float]) -> tuple[float, float]:
    return left[0] - right[1], left[1] - right[0]


def _range(arm: ClaimArm, protocol: Protocol) -> tuple[float, float]:
    """Between which values an arm's figure must lie."""
    epochs = float(arm.recipe.get("epochs", protocol.task.recipe.epochs))
    measured = arm.measured.func if isinstance(arm.measured, partial) else arm.measured
    if measured is measures.chance_level:
        return 0.1, 0.1
    if measured is measures.fixed and isinstance(arm.measured, partial):
        return (arm.measured.keywords["at"],) * 2
    if measured is measures.quarter:
        return epochs / 4, epochs / 4
    if measured in (measures.ticket_epoch, measures.share_of_training):
        span = (earliest(arm.method), epochs) if arm.method is not None else (0.0, 0.0)
        return span if measured is measures.ticket_epoch else (span[0] / epochs, span[1] / epochs)
    return arm.unit.ends


def earliest(method: Method) -> float:
    """The first epoch after which a method can draw its ticket: when its window of masks is full.

    Before training all batch-norm scales are 1, so that the first mask says nothing; it must have left the window.
    """
    if not isinstance(method, EarlyBird) or not method.epsilon:
        return 0.0
    arbitrary = isinstance(method.granularity, SeparateChannels) and method.untrained and method.density < 1
    full = method.window - 1 if method.untrained else method.window
    return float(full + 1 if arbitrary else full)


def _too_coarse(expected: Expectation, arm: ClaimArm, protocol: Protocol) -> str:
    """Whether a figure's steps hide the paper's effect from so many seeds, however well these agree."""
    if not arm.unit.step or not expected.paper or expected.relation != ">":
        return ""
    finest = half_width(arm.unit.step / 2 / math.sqrt(protocol.seeds), 0.025, protocol.seeds, protocol.looks)
    if finest <= abs(expected.paper) / arm.unit.scale:
        return ""
    return (
        f"it cannot be shown: in steps of {arm.unit.size(arm.unit.step)} the seeds show {arm.unit.size(finest)} at best"
    )
