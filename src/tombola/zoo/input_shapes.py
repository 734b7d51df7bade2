"""Checks on input shapes that several models share."""

from __future__ import annotations

from tombola.errors import TombolaError

Shape = tuple[int, ...]


def image_sides(model: str, shape: Shape, smallest: int) -> tuple[int, int, int]:
    """The channels, height and width of an image.

    Args:
        model: the name of the model, for the error.
        shape: of one input.
        smallest: the least height and width that the model can take, in pixels.

    Raises:
        TombolaError: if the shape is not that of an image, or the image is too small.
    """
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
    """The number of hidden units at a relative width, at least one.

    Raises:
        TombolaError: if the width is not above 0.

    Examples:
        >>> scaled(300, 0.5), scaled(300, 0.001)
        (150, 1)
    """
    if not width > 0:
        raise TombolaError(f"width is {width}; give a number above 0")
    return max(1, round(units * width))
