"""Whose face each phrase's outline has, by the detector and the recogniser that portraits are drawn with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...data.faces import SegmentFace
from ...face import FaceModels, find_faces, norm_crop
from ..found import Found

SMALLEST = 40  # pixels of a face's width; of less there is nothing to recognise
CROP = 224


class Faces:
    """models: the two networks, and which recogniser it is."""

    def __init__(self, folder: Path, models: FaceModels | None = None) -> None:
        """models: in place of those in the folder."""
        self.models = models or FaceModels.of_folder(folder)

    def __call__(self, picture: Image.Image, found: Found) -> Found:
        pixels = np.asarray(picture)
        seen = find_faces(pixels, self.models)
        faces: dict[int, SegmentFace] = {}
        for box, points in zip(seen.boxes, seen.keypoints, strict=True):  # the surest first
            number = self._owner(found, points)
            if number in faces or not number or box[2] - box[0] < SMALLEST:
                continue
            vector = self.models.embed(norm_crop(pixels, points, self.models.crop))
            crop = norm_crop(pixels, points, CROP)
            faces[number] = SegmentFace(torch.from_numpy(np.asarray(vector, np.float32)), torch.from_numpy(crop))
        return replace(found, faces=faces, recogniser=self.models.recogniser)

    @staticmethod
    def _owner(found: Found, points: np.ndarray) -> int:
        """The segment that most of a face's points lie in; 0 is none."""
        height, width = found.segments.shape
        columns, rows = points.round().astype(int).T
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        numbers = found.segments[rows[inside], columns[inside]]
        return int(np.bincount(numbers).argmax()) if len(numbers) else 0
