"""The scores by what they score."""

from __future__ import annotations

from tombola.registry import SCORES

WEIGHT_SCORES = {
    name: score for name, score in SCORES.only(unit="weight").items() if SCORES.entry(name).needs != "training"
}
BLOCK_SCORES = SCORES.only(unit="block")
