"""Who is in a picture of the demo, by the networks that measure the procedural world. They never saw these subjects."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmdiff_core.data.augment import recoloured
from mmdiff_core.demo import SUBJECTS
from mmdiff_core.evaluation.world.nets import Box, MetricNets, as_seen, cropped, fitted, on_black, square_around

NAMES = sorted(json.loads((SUBJECTS / "subjects.json").read_text())["drawings"])
HUES = (0.0, 1.57, 3.14, 4.71)
"""Each subject in four colourings: a picture has to be likest to the right one of 24."""


@cache
def nets() -> MetricNets:
    return MetricNets.load(Path(__file__).parent / "data" / "metric_nets.safetensors")


@cache
def candidates() -> Tensor:
    """(24, 96), the colourings of a subject one after another."""
    drawn = [recoloured(Image.open(SUBJECTS / f"{name}.png").convert("RGBA"), hue) for name in NAMES for hue in HUES]
    drawings = [torch.from_numpy(np.asarray(one, np.float32) / 255).movedim(-1, 0) for one in drawn]
    return nets().who(torch.stack([on_black(fitted(one)) for one in drawings]))


def alone(picture: Tensor) -> str:
    """Who is in a picture (3, H, W) in [0, 1] of one subject; "somebody else" has other colours than any subject."""
    return _who(picture, _boxes(picture)[:1])[0]


def from_left(picture: Tensor) -> list[str]:
    """Who is in a picture of two, from left to right."""
    return _who(picture, sorted(_boxes(picture)[:2], key=lambda box: box.x))


def _boxes(picture: Tensor) -> list[Box]:
    return nets().find(as_seen([picture]))[0]


@torch.no_grad()
def _who(picture: Tensor, boxes: list[Box]) -> list[str]:
    crops = cropped(as_seen([picture]).expand(len(boxes), -1, -1, -1), [square_around(box) for box in boxes])
    likest = (nets().who(crops) @ candidates().T).argmax(1).tolist()
    return [NAMES[one // len(HUES)] if one % len(HUES) == 0 else "somebody else" for one in likest]
