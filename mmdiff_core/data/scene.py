"""An annotated picture as a training scene: what is cut out of it, and a photo of each subject."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image

from ..picture_files import open_picture
from .augment import vary
from .buckets import Shape
from .validate import Record, Segment, window

UNCUT = 0.15  # share of references that keep what was around the subject, as a photo without a mask does


def opened(file: Path | BinaryIO) -> Image.Image:
    """RGB of a picture file, black where it is transparent. Raises MMDiffError where it is no picture."""
    picture = open_picture(file)
    return Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture).convert("RGB")


def chosen(record: Record, most: int, random: np.random.Generator) -> list[Segment]:
    """At most so many of a record's segments, in order."""
    return [record.segments[number] for number in sorted(random.permutation(len(record.segments))[:most])]


def target(
    record: Record, picture: Image.Image, segments: np.ndarray, subjects: Sequence[Segment], shape: Shape, sizes: bool
) -> dict[str, Any]:
    """The part of an item that is the same each time, cut to a shape: image (3, H, W) in [-1, 1], caption, entities,
    masks (S, H, W) in [0, 1] and record; where wanted also sizes (6,): height and width of the picture, top and left of
    the cut in the resized picture, height and width of the cut, pixels."""
    left, top, width, height = window(segments, [segment.id for segment in record.segments], shape)
    box = (left, top, left + width, top + height)
    image = picture.resize(shape, Image.Resampling.LANCZOS, box)
    masks = [outline(segments, segment).resize(shape, Image.Resampling.BOX, box) for segment in subjects]
    scale = shape[1] / height
    told = torch.tensor([*record.size[::-1], round(top * scale), round(left * scale), *shape[::-1]])
    return {
        "image": torch.from_numpy(np.array(image)).movedim(-1, 0).float() / 127.5 - 1,
        "caption": record.caption,
        "entities": [(segment.start, segment.end) for segment in subjects],
        "masks": torch.from_numpy(np.stack(masks)).float() / 255,
        "record": record.name,
        **({"sizes": told} if sizes else {}),
    }


def reference(picture: Image.Image, shown: Image.Image, size: int, random: np.random.Generator) -> np.ndarray:
    """(P, P, 3) of 8 bits: a subject cut out of a picture by its outline, varied."""
    box = shown.getbbox()
    subject = picture.crop(box)
    subject.putalpha(255 if random.random() < UNCUT else shown.crop(box))
    return np.asarray(vary(subject, size, random).convert("RGB"))


def stacked(references: Sequence[np.ndarray]) -> torch.Tensor:
    """(S, 3, P, P) in [0, 1]."""
    return torch.from_numpy(np.stack(references)).movedim(-1, 1).float() / 255


def outline(segments: np.ndarray, segment: Segment) -> Image.Image:
    """A segment's place in its map, white on black."""
    return Image.fromarray((segments == segment.id).astype(np.uint8) * 255)
