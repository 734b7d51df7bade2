"""The registered scores that need no training, by what they score: weights or blocks."""

from __future__ import annotations

from tombola.registry import SCORES

WEIGHT_SCORES = {
    name: score for name, score in SCORES.only(unit="weight").items() if SCORES.entry(name).needs != "training"
}
BLOCK_SCORES = SCORES.only(unit="block")
