"""Contact sheets: rows of pictures, each with a few words below it."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from PIL import Image, ImageDraw
from torch import Tensor

GAP, LINE, LETTER = 6, 12, 6  # pixels; LETTER: width of one

Cell = tuple[Tensor | None, str]
"""A picture, (3, H, W) in [0, 1], or None for an empty place; and what stands below it."""


def sheet(rows: Sequence[Sequence[Cell]], side: int, lines: int = 2) -> Image.Image:
    """Every picture fitted into `side` x `side` pixels, with at most `lines` lines of text below it."""
    width, height = side + GAP, side + GAP + lines * LINE
    canvas = Image.new("RGB", (GAP + max(map(len, rows)) * width, GAP + len(rows) * height), "white")
    pen = ImageDraw.Draw(canvas)
    for row, cells in enumerate(rows):
        for column, (picture, text) in enumerate(cells):
            left, top = GAP + column * width, GAP + row * height
            if picture is not None:
                canvas.paste(_fitted(picture, side), (left, top))
            words = "\n".join(wrap(text, side // LETTER)[:lines])
            pen.multiline_text((left, top + side + 1), words, "black", spacing=1, font_size=10)
    return canvas


def image_of(picture: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] as a picture of 8 bits."""
    return Image.fromarray((picture.detach().float().clamp(0, 1) * 255).round().byte().movedim(0, -1).cpu().numpy())


def _fitted(picture: Tensor, side: int) -> Image.Image:
    """Small pictures are enlarged with their pixels visible."""
    image = image_of(picture)
    scale = side / max(image.size)
    size = tuple(max(1, round(length * scale)) for length in image.size)
    return image.resize(size, Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS)
