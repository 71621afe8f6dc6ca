"""Photos to one face each: found, chosen, cut out and recognised (reference: datasets.py)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..errors import MMDiffError
from ..photo import check_photos
from .align import norm_crop
from .models import FaceModels
from .types import Detections, Face, Found

CHOICES = ("largest", "leftmost", "index", "number")
SIZES = range(640, 255, -64)  # the reference's first; a face that fills the photo is only seen in a smaller square


def analyze(
    photos: Tensor,
    models: FaceModels,
    choice: str,
    index: int,
    progress: Callable[[int], None] = lambda done: None,
    crop: int = 224,
) -> tuple[Face, list[Found]]:
    """Find the faces of every photo and recognise one of each.

    photos: (N, H, W, 3 or 4) in [0, 1]; a fourth channel is opacity, and what is transparent becomes black.
    choice: "largest" by the area of its box, "leftmost", or the one that `index` counts from the left: "index" from 0,
    "number" from 1.
    progress: called with the number of photos done, before each of them. crop: side of the crops, pixels.
    Returns one row of `Face` per photo, and per photo what a preview shows. Raises MMDiffError
    naming the photo that has no face, or not the face asked for.
    """
    check_photos(photos)
    embeds, lengths, crops, seen = [], [], [], []
    for number, photo in enumerate(photos):
        progress(number)
        name = f"Photo {number + 1} of {len(photos)}"
        pixels = _eight_bits(photo)
        detections = _left_to_right(find_faces(pixels, models))
        if not len(detections.boxes):
            raise MMDiffError(
                f"{name} ({pixels.shape[1]} x {pixels.shape[0]} pixels): no face was found. Use a photo in which the "
                "face is upright, sharp and not covered."
            )
        chosen = _choose(detections.boxes, choice, index, name)
        keypoints = detections.keypoints[chosen]
        vector = models.embed(norm_crop(pixels, keypoints, models.crop))
        lengths.append(float(np.linalg.norm(vector)))
        embeds.append(torch.from_numpy(vector / np.linalg.norm(vector)))
        crops.append(torch.from_numpy(norm_crop(pixels, keypoints, crop)).float() / 255)
        seen.append(Found(detections.boxes, chosen))
    return Face(torch.stack(embeds), torch.stack(crops), torch.tensor(lengths)), seen


def find_faces(photo: np.ndarray, models: FaceModels) -> Detections:
    """The faces of a photo, (H, W, 3) uint8 RGB, looked at in smaller and smaller squares until there are any.

    The last look is at the photo with a black border, for crops so tight that the head is cut off.
    """
    height, width = photo.shape[:2]
    if max(height, width) > SIZES[-1] * min(height, width):  # not one row of such a strip would be left in the square
        return Detections(np.empty((0, 4)), np.empty(0), np.empty((0, 5, 2)))
    for size in SIZES:
        found = models.detect(photo, size)
        if len(found.boxes):
            return found
    border = min(height, width) // 2
    found = models.detect(np.pad(photo, ((border, border), (border, border), (0, 0))), SIZES[0])
    return Detections(found.boxes - border, found.scores, found.keypoints - border)


def _eight_bits(photo: Tensor) -> np.ndarray:
    opaque = photo[..., :3] * photo[..., 3:] if photo.shape[-1] == 4 else photo
    return (opaque.float().clamp(0, 1) * 255).round().byte().cpu().numpy()


def _left_to_right(found: Detections) -> Detections:
    order = (found.boxes[:, 0] + found.boxes[:, 2]).argsort(kind="stable")
    return Detections(*(values[order] for values in found))


def _choose(boxes: np.ndarray, choice: str, index: int, name: str) -> int:
    if choice == "largest":
        return int(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).argmax())
    if choice == "leftmost":
        return 0
    first = int(choice == "number")
    if not first <= index < first + len(boxes):
        raise MMDiffError(
            f"{name}: face {index} was asked for. Faces found: {len(boxes)}, numbered from the left, the first is "
            f"{first}. Give the number of one of them as {choice}, or choose the largest."
        )
    return index - first
