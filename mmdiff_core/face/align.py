"""A face turned upright and cut out, to the pixel as the reference does it (reference: datasets.py, `norm_crop`)."""

from __future__ import annotations

import numpy as np

# Where ArcFace was trained to see the eyes, the nose and the corners of the mouth, in a crop of 112 pixels.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
_SUBPIXELS = 32  # OpenCV samples between pixels at 32 places
_FINE = 1024  # and adds coordinates up in these steps


def norm_crop(image: np.ndarray, keypoints: np.ndarray, size: int) -> np.ndarray:
    """Cut a face out of a photo by its five keypoints; what lies outside the photo is black.

    image: (H, W, C) uint8. keypoints: (5, 2) x, y in pixels, may lie outside. size: side of the crop, a multiple of
    112, or of 128 with the wider margin such crops have. Returns (size, size, C) uint8.
    """
    scale, margin = (size / 112, 0.0) if size % 112 == 0 else (size / 128, 8.0 * size / 128)
    target = TEMPLATE * np.float32(scale)
    target[:, 0] += margin
    return _warp(image, similarity(keypoints.astype(np.float32), target), size)


def similarity(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3) rotation, scale and shift that take the points nearest to the target, by least squares (Umeyama).

    Single precision and this order of operations are scikit-image's: other roundings move samples by 1/32 pixel.
    """
    middle, target_middle = points.mean(axis=0), target.mean(axis=0)
    points, target = points - middle, target - target_middle
    left, strengths, right = np.linalg.svd(target.T @ points / len(points))
    # A mirrored face may not be mirrored back: the weaker axis is turned instead.
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    turn = left @ np.diag(signs) @ right
    scale = 1 / points.var(axis=0).sum() * (strengths @ signs)
    return np.column_stack([scale * turn, target_middle - scale * (turn @ middle)])


def _warp(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """`cv2.warpAffine` of OpenCV 4: bilinear in fixed point, zeros outside."""
    (a, b, c), (d, e, f) = matrix
    inverse = np.array([[e, -b], [-d, a]]) / (a * e - b * d)
    shift = -inverse @ (c, f)
    steps = np.arange(size)
    columns, rows = (
        np.rint(along * steps * _FINE)[None] + np.rint((down * steps + start) * _FINE)[:, None]
        for (along, down), start in zip(inverse, shift, strict=True)
    )
    half = _FINE // _SUBPIXELS // 2
    columns, rows = ((places.astype(np.int64) + half) // (_FINE // _SUBPIXELS) for places in (columns, rows))

    height, width = image.shape[:2]
    crop = np.full((size, size, image.shape[2]), _SUBPIXELS**2 // 2)
    for down in (0, 1):
        for across in (0, 1):
            x, y = columns // _SUBPIXELS + across, rows // _SUBPIXELS + down
            weight = (_SUBPIXELS - abs(x * _SUBPIXELS - columns)) * (_SUBPIXELS - abs(y * _SUBPIXELS - rows))
            weight *= (x >= 0) & (x < width) & (y >= 0) & (y < height)
            crop += weight[..., None] * image[y.clip(0, height - 1), x.clip(0, width - 1)]
    return (crop // _SUBPIXELS**2).astype(np.uint8)
