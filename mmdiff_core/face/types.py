"""What face analysis hands on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Face:
    """The faces of a subject's references, one row each.

    embeds: (N, D_id) recogniser vectors, length 1. crops: (N, H, W, 3) aligned faces in [0, 1]. lengths: (N,) of the
    vectors as the recogniser gave them.
    """

    embeds: Tensor
    crops: Tensor
    lengths: Tensor | None = None


class Detections(NamedTuple):
    """The faces a detector found in one photo, the surest first.

    boxes: (N, 4) left, top, right, bottom. scores: (N,) in [0, 1]. keypoints: (N, 5, 2) x, y of the eyes, the nose and
    the corners of the mouth, those at the left of the photo first. All float32, in the photo's pixels.
    """

    boxes: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray


class Found(NamedTuple):
    """The faces of one photo for a preview: boxes (N, 4) in pixels, left to right, and which of them was chosen."""

    boxes: np.ndarray
    chosen: int
