"""Picture files, read alike by training, evaluation and the demo: upright, eight bits a channel, with opacity."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from .errors import MMDiffError


def open_picture(path: Path | BinaryIO) -> Image.Image:
    """RGBA, upright as its camera says; 16 bits of grey are rounded to 8.

    Raises MMDiffError where the file is no picture, or has more than 16 bits a channel.
    """
    with _opened(path) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith("I"):  # Pillow would clip all above 255 to white
            upright = _eight_bits(np.asarray(upright))
        elif upright.mode == "F":
            raise ValueError("its values are fractions, wanted are 8 or 16 bits a channel")
        return upright.convert("RGBA")


def read_pixels(path: Path) -> Tensor:
    """The same as (H, W, 4) in [0, 1], red, green, blue and opacity."""
    return torch.from_numpy(np.array(open_picture(path))).float() / 255


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height as `open_picture` has them. All of the file is read, since a cut-off one shows only then."""
    with _opened(path) as picture:
        size = picture.size
        picture.draft("RGB", (1, 1))  # a JPEG decoder leaves out what a thumbnail does not need
        picture.load()
        lies = picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return size[::-1] if lies else size


@contextmanager
def _opened(path: Path | BinaryIO) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as picture:
            yield picture
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MMDiffError(f"{path} can't be read as a picture ({error}). Choose a JPEG, PNG or WebP file.") from error


def _eight_bits(grey: np.ndarray) -> Image.Image:
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError("it has more than 16 bits a channel")
    return Image.fromarray(((grey.astype(np.uint32) + 128) // 257).astype(np.uint8))
