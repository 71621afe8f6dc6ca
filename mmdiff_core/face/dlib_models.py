"""dlib's face detector and recogniser, whose files are CC0: for portraits that may be sold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import MMDiffError
from ..files import refuse_impostors
from .align import TEMPLATE, similarity
from .types import Detections

RECOGNISER, MARKS = "dlib_face_recognition_resnet_model_v1.dat", "shape_predictor_5_face_landmarks.dat"
SOURCE = "https://github.com/davisking/dlib-models"
CROP = 256
"""Side of an aligned face that the chip which dlib's recogniser wants lies in, chin included."""
CHIP, EYE, APART = 150, (47.7, 47.1), 52.6
"""dlib's chip: its side, where the eye at its left is, and how far the eyes are apart, pixels."""
_BELOW_NOSE = (56.0, 78.9)
"""Where the fifth of dlib's marks, between nose and lip, is in an aligned face of 112 pixels."""


class DlibModels:
    """Both networks, from files."""

    def __init__(self, recogniser_file: Path, marks_file: Path) -> None:
        """Raises MMDiffError where a file is not dlib's, or the package is missing."""
        for file in (recogniser_file, marks_file):
            refuse_impostors(file)
        try:
            import dlib
        except ImportError as error:
            raise MMDiffError(
                f"dlib's face models need the package dlib, and it can't be imported ({error}). Run `pip install "
                "dlib-bin` (or dlib) with the Python that runs this program."
            ) from error
        self._find = dlib.get_frontal_face_detector()
        self._marks = _opened(dlib.shape_predictor, marks_file)
        self._describe = _opened(dlib.face_recognition_model_v1, recogniser_file)

    def detect(self, photo: np.ndarray, size: int) -> Detections:
        """The faces of a photo, (H, W, 3) uint8 RGB, looked at with its longer side at `size` pixels, or as it is."""
        scale = min(1.0, size / max(photo.shape[:2]))
        sides = [max(1, round(side * scale)) for side in photo.shape[1::-1]]
        small = np.ascontiguousarray(Image.fromarray(photo).resize(sides, Image.Resampling.BOX))
        boxes, scores, _ = self._find.run(small, 1, 0.0)
        points = []
        for box in boxes:
            right, right_in, left, left_in, nose = ([one.x, one.y] for one in self._marks(small, box).parts())
            three = np.array([np.mean([left, left_in], 0), np.mean([right, right_in], 0), nose], np.float32)
            matrix = similarity(three, np.array([*TEMPLATE[:2], _BELOW_NOSE], np.float32))
            points.append((TEMPLATE - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T)
        edges = [[box.left(), box.top(), box.right(), box.bottom()] for box in boxes]
        return Detections(
            np.array(edges, np.float32).reshape(-1, 4) / scale,
            np.array(scores, np.float32),
            np.array(points, np.float32).reshape(-1, 5, 2) / scale,
        )

    def embed(self, crop: np.ndarray) -> np.ndarray:
        """The (128,) vector of an aligned face, (256, 256, 3) uint8 RGB."""
        margin, scale = CROP / 16, CROP / 128
        eyes = TEMPLATE[:2] * scale + (margin, 0)
        step = (eyes[1, 0] - eyes[0, 0]) / APART
        left, top = (float(eyes[:, side].min() - EYE[side] * step) for side in (0, 1))
        box = (left, top, left + CHIP * step, top + CHIP * step)
        chip = Image.fromarray(crop).resize((CHIP, CHIP), Image.Resampling.BILINEAR, box)
        return np.array(self._describe.compute_face_descriptor(np.ascontiguousarray(chip)), np.float32)


def _opened(kind: Any, file: Path) -> Any:
    try:
        return kind(str(file))
    except RuntimeError as error:
        raise MMDiffError(f"{file} is not a whole file of dlib ({error}). Download it again: {SOURCE}.") from error
