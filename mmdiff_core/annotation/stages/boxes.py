"""Where in the picture each phrase is, by a model that finds what it is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image

from ..found import Found, Phrase
from .pipelines import open_pipeline

ASIDE = 0.5  # boxes that share less of their union than this are two places
LEAST = 0.05  # surer ones are kept; what is sure enough is decided later


class Boxes:
    """OWL-ViT, OWLv2, Grounding DINO and their kind. The surest box of each phrase, and how sure another place is."""

    def __init__(self, folder: Path) -> None:
        self.pipeline = open_pipeline("zero-shot-object-detection", folder)
        grounding = "grounding" in self.pipeline.model.config.model_type
        self.ending = "." if grounding else ""  # Grounding DINO was trained on phrases that end so

    def __call__(self, picture: Image.Image, found: Found) -> Found:
        labels = [found.caption[one.start : one.end].lower() + self.ending for one in found.phrases]
        places: dict[str, list[tuple[float, tuple[float, ...]]]] = {}
        for one in self.pipeline(picture, candidate_labels=sorted(set(labels)), threshold=LEAST):
            box = tuple(float(one["box"][side]) for side in ("xmin", "ymin", "xmax", "ymax"))
            places.setdefault(one["label"], []).append((float(one["score"]), box))
        return replace(
            found,
            phrases=tuple(
                placed(phrase, places.get(label, []), picture.size)
                for phrase, label in zip(found.phrases, labels, strict=True)
            ),
        )


def placed(phrase: Phrase, places: list[tuple[float, tuple[float, ...]]], size: tuple[int, int]) -> Phrase:
    """The phrase at the surest of its (score, box) places that lies in a picture of that size."""
    width, height = size
    inside = [
        (score, (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))))
        for score, (left, top, right, bottom) in places
    ]
    inside = [(score, box) for score, box in inside if box[0] < box[2] and box[1] < box[3]]
    if not inside:
        return phrase
    score, box = max(inside)
    again = max((other for other, place in inside if overlap(box, place) < ASIDE), default=0.0)
    return phrase._replace(box=box, score=score, again=again)


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The share of two boxes' union that both cover."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared)
