"""Corruptions of images, as noise and fog, at five severities (Hendrycks & Dietterich, ICLR 2019)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from tombola.errors import TombolaError, unknown
from tombola.training import mixed, own_randomness

Suite = Literal["core", "all"]

SMALLEST, PADDED, ROUNDING = 8, 32, 1e-4


def corrupt(images: Tensor, kind: str, severity: int, seed: int = 0, suite: Suite = "core") -> Tensor:
    """Corrupt images.

    The suite "core" has the severities of CIFAR-10-C, which are made for small images. The suite "all" is that of
    corrupt-tta (extra `robust`), with the severities of ImageNet-C. It works on 256 levels, image by image. It pads
    smaller images to 32×32 by reflection and cuts them out again; it repeats grey ones to three channels and averages.
    Below 14×14, some severities of pixelate coincide.

    Args:
        images: (n, 1 or 3, height, width), floats in [0, 1], at least 8×8. Give all images in one call: a second call
            with the same seed draws the same noise again.
        kind: a name in `SUITES[suite]`.
        severity: 1 to 5.
        seed: of the noise; the global random state is left unchanged.
        suite: "core" or "all".

    Returns:
        Images of the same shape, in [0, 1].

    Raises:
        TombolaError: an unknown kind, suite or severity, other images, or a missing extra.

    Examples:
        >>> corrupt(torch.full((1, 1, 8, 8), 0.5), "brightness", severity=5).mean()
        tensor(0.8000)
    """
    if suite not in SUITES:
        raise unknown("suite of corruptions", suite, SUITES)
    if kind not in SUITES[suite]:
        raise unknown(f"{suite}-suite corruption", kind, SUITES[suite])
    if severity not in range(1, 6):
        raise TombolaError(f"there is no severity {severity}; give a whole number from 1 to 5")
    _check(images)
    images = images.clamp(0, 1)
    seeds = (seed, severity, *kind.encode())
    if suite == "all":
        return _by_corrupt_tta(images, kind, severity, seeds).clamp(0, 1)
    corruption, settings = _CORE[kind]
    return corruption(images, settings[severity - 1], Generator().manual_seed(mixed(*seeds))).clamp(0, 1)


def _check(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[2:]) < SMALLEST or not len(images):
        raise TombolaError(
            f"corruptions take images (n, 1 or 3, height, width) of at least {SMALLEST}×{SMALLEST}, "
            f"not {(*images.shape,)}"
        )
    low, high = (float(extreme) for extreme in images.aminmax())
    if not (images.is_floating_point() and low >= -ROUNDING and high <= 1 + ROUNDING):
        raise TombolaError(
            f"corruptions take floats from 0 to 1, and these images are {images.dtype} from {low:.3g} to {high:.3g}; "
            "scale them to 0…1, and normalise them after the corruption"
        )


def _gaussian_noise(images: Tensor, spread: float, generator: Generator) -> Tensor:
    return images + spread * torch.randn(images.shape, generator=generator).to(images)


def _gaussian_blur(images: Tensor, sigma: float, generator: Generator) -> Tensor:
    reach = round(4 * sigma)
    kernel = torch.exp(-((torch.arange(-reach, reach + 1) / sigma) ** 2) / 2)
    kernel = (kernel / kernel.sum()).to(images)
    planes = F.pad(images.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(planes, kernel[None, None, None]), kernel[None, None, :, None]).view_as(images)


def _contrast(images: Tensor, share: float, generator: Generator) -> Tensor:
    return images.mean((2, 3), keepdim=True).lerp(images, share)


def _brightness(images: Tensor, more: float, generator: Generator) -> Tensor:
    """More of HSV's value, which is the largest channel. The channels' ratios to it, hue and saturation, stay."""
    value = images.amax(1, keepdim=True)
    return torch.where(value > 0, images / value, 1.0) * (value + more).clamp(max=1)


def _pixelate(images: Tensor, share: float, generator: Generator) -> Tensor:
    # Down and up again, as one matrix product for each side.
    rows, columns = (
        (_resizing(int(side * share), side) @ _resizing(side, int(side * share))).to(images)
        for side in images.shape[2:]
    )
    return rows @ images @ columns.T


def _resizing(size: int, wanted: int) -> Tensor:
    """The matrix (wanted, size) that resizes a row of pixels: each is the mean of those whose centres lie in it.

    Where pixels become larger in number, each is the nearest one.
    """
    # In whole numbers, 2 · size · wanted times the distance of centres: no rounding decides a tie.
    distances = (2 * torch.arange(size) + 1) * wanted - (2 * torch.arange(wanted)[:, None] + 1) * size
    inside = ((distances > -max(size, wanted)) & (distances <= max(size, wanted))).double()
    return inside / inside.sum(1, keepdim=True)


def _fog(images: Tensor, setting: tuple[float, float], generator: Generator) -> Tensor:
    thickness, decay = setting
    height, width = images.shape[2:]
    clouds = _clouds(len(images), max(height, width), decay, generator)[:, None, :height, :width].to(images)
    brightest = images.amax((1, 2, 3), keepdim=True)
    return (images + thickness * clouds) * brightest / (brightest + thickness)


def _clouds(count: int, size: int, decay: float, generator: Generator) -> Tensor:
    """Plasma fractals in [0, 1] by the diamond-square algorithm on a torus (Fournier et al., CACM 1982).

    Their side is the next power of two from `size` on. As in the benchmark, a level's random moves fall with the square
    of the decay.
    """
    heights, spread = torch.zeros(count, 1, 1), 1.0
    for _ in range(math.ceil(math.log2(size))):
        moves = spread * (2 * torch.rand(3, *heights.shape, generator=generator) - 1)
        corners, below, right = heights, heights.roll(-1, 1), heights.roll(-1, 2)
        centres = (corners + below + right + below.roll(-1, 2)) / 4 + moves[0]
        tops = (corners + right + centres + centres.roll(1, 1)) / 4 + moves[1]
        sides = (corners + below + centres + centres.roll(1, 2)) / 4 + moves[2]
        even, odd = torch.stack((corners, tops), 3).flatten(2), torch.stack((sides, centres), 3).flatten(2)
        heights, spread = torch.stack((even, odd), 2).flatten(1, 2), spread / decay**2
    heights = heights - heights.amin((1, 2), keepdim=True)
    return heights / heights.amax((1, 2), keepdim=True)


_CORE: dict[str, tuple[Callable[[Tensor, Any, Generator], Tensor], tuple[Any, ...]]] = {
    "gaussian-noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "gaussian-blur": (_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "fog": (_fog, ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))),
}

CORE = tuple(_CORE)
ALL = (
    *("gaussian-noise", "shot-noise", "impulse-noise", "speckle-noise"),
    *("gaussian-blur", "glass-blur", "defocus-blur", "motion-blur", "zoom-blur"),
    *("fog", "frost", "snow", "spatter"),
    *("contrast", "brightness", "saturate", "jpeg-compression", "pixelate", "elastic-transform"),
)
SUITES: dict[str, tuple[str, ...]] = {"core": CORE, "all": ALL}
"""The kinds of corruptions in each suite."""

_IMPULSES = (0.03, 0.06, 0.09, 0.17, 0.27)


def _by_corrupt_tta(images: Tensor, kind: str, severity: int, seeds: tuple[int, ...]) -> Tensor:
    """The suite "all"."""
    try:
        import corrupt_tta
        from skimage.util import random_noise
    except ImportError as error:
        raise TombolaError("the suite 'all' needs corrupt-tta; install it: pip install 'tombola[robust]'") from error

    def corrupted(image: np.ndarray) -> np.ndarray:
        # Here corrupt-tta does not use NumPy's global seed, so that its result would change from call to call.
        if kind == "impulse-noise":
            seed = np.random.randint(2**31)
            return 255 * random_noise(image / 255, mode="s&p", amount=_IMPULSES[severity - 1], rng=seed)
        return corrupt_tta.corrupt(image, severity, kind.replace("-", "_"))

    height, width = images.shape[2:]
    top, left = (max(PADDED - side, 0) // 2 for side in (height, width))
    margins = ((top, max(PADDED - height - top, 0)), (left, max(PADDED - width - left, 0)))
    levels = (images.detach() * 255).round().byte().cpu().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    padded = np.pad(levels, ((0, 0), *margins, (0, 0)), mode="reflect")
    # corrupt-tta draws from global generators, which come back afterwards.
    with own_randomness(torch.device("cpu"), *seeds):
        corrupt_levels = np.stack([corrupted(image) for image in padded])
    cropped = corrupt_levels[:, top : top + height, left : left + width]
    result = torch.from_numpy(cropped / 255).permute(0, 3, 1, 2).to(images)
    return result.mean(1, keepdim=True) if images.shape[1] == 1 else result.contiguous()
