"""Buckets: the shapes that pictures of other aspects than a square are trained in, all of about one area."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

Shape = tuple[int, int]
"""Width and height, pixels."""

WIDEST = 2.0  # longer side over the shorter one
FINE = 16  # steps of a shape's sides in the square's side


def shapes(resolution: int, step: int) -> list[Shape]:
    """The shapes of at most the area of a square of this side, from upright to wide. step: what sides are multiples of;
    at 1024 pixels they are the 64 of SDXL's own list."""
    grid = step * -(-resolution // (FINE * step))
    wide = [(side, resolution**2 // side // grid * grid) for side in range(resolution, 2 * resolution, grid)]
    wide = [(width, height) for width, height in wide if width <= WIDEST * height]
    return sorted({*wide, *((height, width) for width, height in wide)})


def nearest(known: Sequence[Shape], width: int, height: int) -> Shape:
    """The shape whose aspect is nearest to a picture's."""
    return min(known, key=lambda shape: abs(log(shape[0] / shape[1] * height / width)))
