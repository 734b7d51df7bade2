"""Images of your own: DIR/train/CLASS/*, DIR/test/CLASS/*, and if you like DIR/validation/CLASS/*."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.files import content_of
from tombola.zoo.normalisation import Data, normalised

KINDS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def image_folder(folder: Path, size: int | None = None) -> Data:
    """Normalised images of shape (3, size, size), with a class for each folder in `train`, in alphabetical order.

    Args:
        folder: holds `train` and `test`, and perhaps `validation`.
        size: the side of the square that each image is scaled and cut to around its centre, in pixels; None takes
            the images as they are, all of one size.

    Returns:
        The splits, each (images float32, class numbers int64).

    Raises:
        TombolaError: if a folder has no images, or a class that `train` lacks; if a file is no image; if the sizes
            differ and `size` is None; if the package Pillow is missing.
    """
    for split in ("train", "test"):
        if not (folder / split).is_dir():
            raise TombolaError(f"{folder} has no folder '{split}'; put images into {folder}/{split}/CLASS/")
    classes = _classes(folder / "train")
    splits = [split for split in ("train", "validation", "test") if (folder / split).is_dir()]
    return normalised({split: _split(folder / split, classes, size) for split in splits})


def _classes(train: Path) -> list[str]:
    names = sorted(child.name for child in train.iterdir() if child.is_dir() and not child.name.startswith("."))
    if len(names) < 2:
        raise TombolaError(f"{train} has {len(names)} folders of images; it needs one for each class, at least two")
    return names


def _split(folder: Path, classes: Sequence[str], size: int | None) -> tuple[Tensor, Tensor]:
    extra = sorted(c.name for c in folder.iterdir() if c.is_dir() and c.name not in classes and c.name[0] != ".")
    if extra:
        raise TombolaError(
            f"{folder / extra[0]} is a class that the training folder lacks; remove it, or add its training images"
        )
    paths = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).glob("*"))
        if path.suffix.lower() in KINDS
    ]
    if not paths:
        raise TombolaError(f"{folder} holds no images ({', '.join(KINDS)}); put them into {folder}/{classes[0]}/, …")
    images = [_image(path, size) for path, _ in paths]
    for (path, _), image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            sizes = [f"{shape[2]}×{shape[1]}" for shape in (image.shape, images[0].shape)]
            raise TombolaError(f"{path} is {sizes[0]} and {paths[0][0]} is {sizes[1]}; give --image-size")
    return torch.stack(images), torch.tensor([label for _, label in paths])


def _image(path: Path, size: int | None) -> Tensor:
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise TombolaError("reading image folders needs Pillow; install it: pip install 'tombola[images]'") from error
    content = content_of(path)
    try:
        with Image.open(io.BytesIO(content)) as opened:
            image = opened.convert("RGB")
    except UnidentifiedImageError as error:
        raise TombolaError(f"{path} is no image that Pillow reads; repair or remove it") from error
    except Exception as error:  # Pillow's readers raise all kinds
        raise TombolaError(f"{path} cannot be read as an image ({error}); repair or remove it") from error
    if size is not None:
        image = ImageOps.fit(image, (size, size))
    return torch.from_numpy(np.asarray(image, np.uint8).copy()).permute(2, 0, 1).float().div_(255)
