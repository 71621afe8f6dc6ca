"""The field's measures of a picture: CLIP-T with its prompt, CLIP-I, DINO and faces with the subject's photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..cases import Case, batches, read_picture
from .encoders import Clip, Dino
from .faces import Faces

Values = dict[str, float]
"""Case to number."""
BATCH = 16


def clip_t(clip: Clip, cases: Sequence[Case], files: Mapping[str, Path]) -> Values:
    """Cosine of each picture with its prompt, the markers taken out."""
    texts = sorted({case.text for case in cases})
    encoded = torch.cat([clip.texts(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)])
    of = dict(zip(texts, encoded, strict=True))
    by_id = {case.id: case for case in cases}
    return {
        name: float(vector @ of[by_id[name].text])
        for part, pictures in batches(files, BATCH)
        for name, vector in zip(part, clip.pictures(pictures), strict=True)
    }


def likeness(
    encoder: Clip | Dino, cases: Sequence[Case], files: Mapping[str, Path], photos: Mapping[str, Tensor]
) -> Values:
    """CLIP-I or DINO: mean cosine of each picture with all photos of its subject; of a pair, the mean of both subjects.

    photos: subject -> (N, D), as `encode_photos` makes them.
    """
    by_id = {case.id: case for case in cases}
    return {
        name: float(torch.stack([(photos[subject] @ vector).mean() for subject in by_id[name].subjects]).mean())
        for part, pictures in batches(files, BATCH)
        for name, vector in zip(part, encoder.pictures(pictures), strict=True)
    }


def encode_photos(encoder: Clip | Dino, photos: Mapping[str, Sequence[Path]]) -> dict[str, Tensor]:
    """Subject -> its photos' vectors, (N, D)."""
    return {
        name: torch.cat([encoder.pictures([read_picture(path)]) for path in paths]) for name, paths in photos.items()
    }


def among_photos(photos: Mapping[str, Tensor]) -> tuple[Values, Values]:
    """What real photos reach, by photo: likeness to the subject's other photos (the ceiling) and to the photos of all
    other subjects (the floor). Keys are `SUBJECT/NUMBER`; a subject of one photo has no ceiling."""
    ceiling, floor = {}, {}
    for name, vectors in photos.items():
        own, others = vectors @ vectors.T, [other for key, other in photos.items() if key != name]
        for number, row in enumerate(own):
            if len(vectors) > 1:
                ceiling[f"{name}/{number}"] = float((row.sum() - row[number]) / (len(vectors) - 1))
            if others:
                floor[f"{name}/{number}"] = float((torch.cat(others) @ vectors[number]).mean())
    return ceiling, floor


def face(faces: Faces, cases: Sequence[Case], files: Mapping[str, Path], photos: Mapping[str, Tensor]) -> Values:
    """FastComposer's measure: cosine with the reference's face, at least 0, and 0 where no face is found.

    Of one subject the surest face counts. Of several, faces and subjects are matched greedily, the best first, and the
    worst match counts. photos: subject -> (D,), the face of its reference.
    """
    by_id = {case.id: case for case in cases}
    return {
        name: match(faces.vectors(read_picture(path)), torch.stack([photos[s] for s in by_id[name].subjects]))
        for name, path in files.items()
    }


def match(found: Tensor, wanted: Tensor) -> float:
    """found: (F, D) faces of a picture, the surest first; wanted: (S, D). Greedy, and the least of the matches."""
    found = found if len(wanted) > 1 else found[:1]
    if len(found) < len(wanted):
        return 0.0
    scores = (found @ wanted.T).clamp(min=0)
    least = 1.0
    for _ in wanted:
        best = int(scores.argmax())
        row, column = divmod(best, scores.shape[1])
        least = min(least, float(scores[row, column]))
        scores[row], scores[:, column] = -1, -1
    return least
