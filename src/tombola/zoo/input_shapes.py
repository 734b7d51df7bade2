"""Checks on input shapes that several models share."""

from __future__ import annotations

from tombola.errors import TombolaError

Shape = tuple[int, ...]


def image_sides(model: str, shape: Shape, smallest: int) -> tuple[int, int, int]:
    """Channels, height and width of an image shape; TombolaError for anything else, or too small."""
    if len(shape) != 3:
        raise TombolaError(
            f"{model} takes images of shape (channels, height, width) but the inputs are {shape}; "
            "use lenet-300-100, which takes any shape"
        )
    channels, height, width = shape
    if min(height, width) < smallest:
        raise TombolaError(f"{model} needs images of at least {smallest}×{smallest} pixels, not {height}×{width}")
    return channels, height, width


def scaled(units: int, width: float) -> int:
    """Hidden units at a relative width, at least one."""
    if not width > 0:
        raise TombolaError(f"width is {width}; give a number above 0")
    return max(1, round(units * width))
