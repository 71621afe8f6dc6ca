"""A cast looked for among the faces of a picture."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import MMDiffError
from ..face import FaceModels, find_faces, norm_crop
from .seen import Seen, homes_of

ALIKE = (0.4, 0.6)
"""Cosine between two photos of one person: the least that is believed of a subject's references, and what is taken
where there is only one. Of two people it is 0 on average (ArcFace)."""


def by_faces(picture: Tensor, faces: list[Tensor], acted: list[Tensor | None], models: FaceModels) -> Seen:
    """Every face of a picture, and how like it is to every subject, on the subject's own scale.

    picture: (3, H, W) in [0, 1]. faces: for each subject the (R, D_id) vectors of its references. acted: as for
    `homes_of`. Raises MMDiffError where the vectors are of another recogniser.
    """
    pixels = (picture.clamp(0, 1) * 255).round().byte().movedim(0, -1).cpu().numpy()
    found = find_faces(pixels, models)
    boxes = torch.from_numpy(np.asarray(found.boxes, np.float32)).reshape(-1, 4)
    vectors = [torch.from_numpy(models.embed(norm_crop(pixels, points, models.crop))) for points in found.keypoints]
    if not vectors:
        return Seen(boxes, torch.zeros(len(faces), 0), [None] * len(faces))
    seen = normalize(torch.stack(vectors).float(), dim=-1)
    scores = []
    for subject, own in enumerate(faces, 1):
        if own.shape[-1] != seen.shape[-1]:
            raise MMDiffError(
                f"The face vectors of subject {subject} are {own.shape[-1]} wide, those of the face models here "
                f"{seen.shape[-1]}. Encode the subject again with these."
            )
        own = normalize(own.float(), dim=-1)
        scores.append((own @ seen.T).amax(0).clamp_min(0) / _alike(own))
    return Seen(boxes, torch.stack(scores), homes_of(boxes, acted, picture.shape[-2:]))


def _alike(own: Tensor) -> float:
    """Mean cosine between the references of a subject."""
    count = len(own)
    if count == 1:
        return ALIKE[1]
    among = own @ own.T
    return max(float((among.sum() - among.trace()) / (count * (count - 1))), ALIKE[0])
