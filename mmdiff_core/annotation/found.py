"""What was found in a picture, in memory and on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.faces import SegmentFace
from ..errors import MMDiffError
from ..files import read_safetensors, write_safetensors

ENTRY = "mmdiff_found"


class Phrase(NamedTuple):
    """A noun phrase of the caption, and where it was found.

    start, end: its characters, end exclusive. box: left, top, right, bottom in pixels, or None where it was not found.
    score: how sure that is, 0 to 1. again: how sure the next place is, which is another one. share: of the picture
    that its mask covers.
    """

    start: int
    end: int
    box: tuple[float, float, float, float] | None = None
    score: float = 0.0
    again: float = 0.0
    share: float = 0.0


@dataclass(frozen=True)
class Found:
    """What is known of a picture. A stage takes one and returns one that knows more.

    made: (stage, what did it) in order. size: width, height. likeness: of the picture, as `likeness.outlook` has it.
    problem: why nothing could be found. segments: (H, W) uint8, phrase number + 1 where its mask is. faces: by that
    number; recogniser: by which.
    """

    made: tuple[tuple[str, str], ...] = ()
    size: tuple[int, int] = (0, 0)
    likeness: str = ""
    problem: str = ""
    caption: str = ""
    phrases: tuple[Phrase, ...] = ()
    segments: np.ndarray | None = None
    faces: Mapping[int, SegmentFace] = field(default_factory=dict)
    recogniser: str = ""

    def without(self, stages: set[str]) -> Found:
        """The same before these stages were run."""
        found = self
        if "words" in stages:
            found = replace(found, phrases=())
        if "boxes" in stages:
            found = replace(found, phrases=tuple(Phrase(one.start, one.end) for one in found.phrases))
        if "masks" in stages:
            found = replace(found, segments=None)
        if "faces" in stages:
            found = replace(found, faces={}, recogniser="")
        return found

    def with_shares(self) -> Found:
        """The same with the area of each phrase's mask."""
        if self.segments is None:
            return self
        areas = np.bincount(self.segments.reshape(-1), minlength=len(self.phrases) + 1) / self.segments.size
        phrases = (one._replace(share=float(area)) for one, area in zip(self.phrases, areas[1:], strict=False))
        return replace(self, phrases=tuple(phrases))


_TENSORS = ("segments", "faces")


def write_found(path: Path, found: Found) -> None:
    """Write it as safetensors; the map as a PNG in it, since masks are flat."""
    entry = {name: value for name, value in vars(found).items() if name not in _TENSORS}
    tensors = {"none": torch.zeros(1, dtype=torch.uint8)}
    if found.segments is not None:
        png = BytesIO()
        Image.fromarray(found.segments).save(png, "png")
        tensors["segments"] = torch.frombuffer(bytearray(png.getvalue()), dtype=torch.uint8)
    for number, face in found.faces.items():
        tensors |= {f"faces.{number}.{part}": value for part, value in face._asdict().items()}
    write_safetensors(path, tensors, {ENTRY: json.dumps(entry)})


def read_found(path: Path, whole: bool = False) -> Found:
    """What was written; nothing where there is no file, or none that can be read: then it is found again. whole: with
    its segments and the crops of faces, which take time and room."""
    try:
        tensors, metadata = read_safetensors(path)
        entry = json.loads(metadata[ENTRY])
        return Found(
            **entry
            | {
                "made": tuple(map(tuple, entry["made"])),
                "size": tuple(entry["size"]),
                "phrases": tuple(_phrase(*one) for one in entry["phrases"]),
                "faces": _faces(tensors, whole),
            },
            segments=_map(tensors) if whole else None,
        )
    except (MMDiffError, KeyError, TypeError, ValueError, OSError, Image.DecompressionBombError):
        return Found()


def _phrase(start: int, end: int, box: list[float] | None, *rest: float) -> Phrase:
    return Phrase(start, end, None if box is None else tuple(box), *rest)


def _map(tensors: Mapping[str, Tensor]) -> np.ndarray | None:
    png = tensors.get("segments")
    return None if png is None else np.array(Image.open(BytesIO(png.numpy().tobytes())))


def _faces(tensors: Mapping[str, Tensor], whole: bool) -> dict[int, SegmentFace]:
    parts: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("faces."):
            _, number, part = key.split(".")
            parts.setdefault(int(number), {})[part] = value if whole or part == "vector" else value[:0]
    return {number: SegmentFace(**one) for number, one in sorted(parts.items())}
