"""Faces of pictures as vectors, with the detector and recogniser that portraits are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import MMDiffError
from ...face import FaceModels, find_faces, norm_crop
from ..cases import read_picture


class Faces:
    """models: the two networks. A picture without a face is no error here: it is a picture that failed."""

    def __init__(self, models: FaceModels) -> None:
        self.models = models

    @classmethod
    def load(cls, folder: Path) -> Faces:
        """Raises MMDiffError where the folder lacks the detector or the recogniser."""
        return cls(FaceModels.of_folder(folder))

    def vectors(self, picture: Tensor) -> Tensor:
        """(3, H, W) in [0, 1] to (F, D) of length 1, the surest face first."""
        pixels = (picture * 255).round().byte().movedim(0, -1).numpy()
        found = find_faces(pixels, self.models)
        vectors = [self.models.embed(norm_crop(pixels, points, self.models.crop)) for points in found.keypoints]
        return torch.from_numpy(np.array([vector / np.linalg.norm(vector) for vector in vectors], dtype=np.float32))

    def of_references(self, photos: Mapping[str, Sequence[Path]]) -> dict[str, Tensor]:
        """Subject -> (D,), the surest face of its first photo. Raises MMDiffError where that photo has none."""
        faces = {}
        for name, paths in photos.items():
            vectors = self.vectors(read_picture(paths[0]))
            if not len(vectors):
                raise MMDiffError(
                    f"{paths[0]}: no face was found in the reference of subject '{name}'. Leave the measure `face` "
                    "out, or name the subjects that are people."
                )
            faces[name] = vectors[0]
        return faces
