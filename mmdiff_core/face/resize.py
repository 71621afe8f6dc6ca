"""Bilinear resize of 8-bit images in OpenCV's fixed-point steps, so that the detector sees what insightface's does."""

from __future__ import annotations

import numpy as np

_ONE = 2048  # a weight of 1


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, C) uint8 to (height, width, C) uint8, equal to `cv2.resize` with its default interpolation."""
    (top, bottom), (over, under) = _taps(image.shape[0], height)
    (left, right), (before, after) = _taps(image.shape[1], width)

    def across(rows: np.ndarray) -> np.ndarray:
        lines = image[rows]
        return (lines[:, left] * before[:, None] + lines[:, right] * after[:, None]) >> 4

    down = (across(top) * over[:, None, None] >> 16) + (across(bottom) * under[:, None, None] >> 16)
    return (down + 2 >> 2).astype(np.uint8)


def _taps(size: int, wanted: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """For every output position its two neighbours and their weights; beyond the edge both are the last pixel."""
    places = ((np.arange(wanted) + 0.5) * (size / wanted) - 0.5).astype(np.float32)
    first = np.floor(places)
    fraction = places - first
    first = first.astype(np.int64)
    neighbours = first.clip(0, size - 1), (first + 1).clip(0, size - 1)
    weights = tuple(np.rint(share * np.float32(_ONE)).astype(np.int32) for share in (1 - fraction, fraction))
    return neighbours, weights
