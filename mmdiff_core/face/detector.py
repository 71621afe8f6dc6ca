"""SCRFD, insightface's face detector, without insightface (reference: its model_zoo/scrfd.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .resize import resize
from .types import Detections

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

STRIDES = (8, 16, 32)
ANCHORS = 2  # faces that one place of the grid can name
THRESHOLD = 0.5
OVERLAP = 0.4


def detect(session: InferenceSession, photo: np.ndarray, size: int) -> Detections:
    """The faces of a photo, (H, W, 3) uint8 RGB, looked at in a square of `size` pixels, a multiple of 32."""
    canvas, scale = letterbox(photo, size)
    pixels = (canvas.astype(np.float32) - 127.5) / 128
    outputs = session.run(None, {session.get_inputs()[0].name: pixels.transpose(2, 0, 1)[None]})
    boxes, scores, keypoints = decode(outputs, size)
    found = Detections(boxes / scale, scores, keypoints / scale)
    kept = suppress(found.boxes, scores)
    return Detections(*(values[kept] for values in found))


def letterbox(photo: np.ndarray, size: int) -> tuple[np.ndarray, float]:
    """The photo in the top left of a black square, as large as fits; and its scale there."""
    height, width = photo.shape[:2]
    if height > width:
        inner_height, inner_width = size, int(size / (height / width))
    else:
        inner_height, inner_width = int(size * (height / width)), size
    canvas = np.zeros((size, size, 3), np.uint8)
    canvas[:inner_height, :inner_width] = resize(photo, inner_height, inner_width)
    return canvas, inner_height / height


def decode(outputs: list[np.ndarray], size: int) -> Detections:
    """The network's nine outputs (scores, box edges and keypoints at each stride) as faces in the square's pixels."""
    levels = []
    for stride, scores, edges, points in zip(STRIDES, outputs[:3], outputs[3:6], outputs[6:], strict=True):
        cells = size // stride
        rows, columns = np.mgrid[:cells, :cells].astype(np.float32) * stride
        centres = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2).repeat(ANCHORS, axis=0)
        sure = scores.reshape(-1) >= THRESHOLD
        centres = centres[sure]
        outward = edges.reshape(-1, 2, 2)[sure] * stride * np.array([[-1], [1]], np.float32)
        levels.append(
            (
                (centres + outward).reshape(-1, 4),
                scores.reshape(-1)[sure],
                centres + points.reshape(-1, 5, 2)[sure] * stride,
            )
        )
    return Detections(*(np.concatenate(values) for values in zip(*levels, strict=True)))


def suppress(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Of boxes that overlap by more than OVERLAP the surest: their numbers, the surest first."""
    left, top, right, bottom = boxes.T
    # Both edges belong to a box, so one pixel is 1 wide: insightface's count, kept for equal results on small faces.
    areas = (right - left + 1) * (bottom - top + 1)
    kept = []
    order = scores.argsort()[::-1]
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        width = np.minimum(right[best], right[order]) - np.maximum(left[best], left[order]) + 1
        height = np.minimum(bottom[best], bottom[order]) - np.maximum(top[best], top[order]) + 1
        shared = width.clip(0) * height.clip(0)
        order = order[shared / (areas[best] + areas[order] - shared) <= OVERLAP]
    return kept
