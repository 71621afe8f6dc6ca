"""Pictures of coloured boxes, and stages that read them without an error: they look for the colours that words name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mmdiff_core.annotation.found import Found, Phrase
from mmdiff_core.annotation.stages import Planned
from mmdiff_core.annotation.stages.masks import painted
from mmdiff_core.data.faces import SegmentFace

COLOURS = {"red": (220, 20, 20), "blue": (20, 20, 220), "green": (20, 200, 20), "white": (240, 240, 240)}
CALLS: list[tuple[str, str]] = []
"""Every call of a stage in this process: its name, and the caption it was called with."""


def draw(path: Path, *names: str, size: tuple[int, int] = (96, 64), seed: int = 0) -> Path:
    """Boxes beside each other, in grey dust that is another one for every seed."""
    random = np.random.default_rng(seed)
    width, height = size
    dust = random.integers(60, 120, (height // 8, width // 8, 1), np.uint8)
    pixels = np.asarray(Image.fromarray(dust[..., 0]).resize(size, Image.Resampling.NEAREST).convert("RGB")).copy()
    for number, name in enumerate(names):
        left = number * width // len(names) + 4 + int(random.integers(0, 5))
        top = height // 8 + int(random.integers(0, 5))
        pixels[top : top + height // 2, left : left + width // len(names) // 2] = COLOURS[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def seen(picture: Image.Image, name: str) -> np.ndarray:
    """(H, W) bool: where a colour is, as far as JPEG leaves it."""
    return np.abs(np.asarray(picture, np.int16) - COLOURS[name]).max(-1) < 40


def _phrases(found: Found):
    for number, phrase in enumerate(found.phrases):
        word = found.caption[phrase.start : phrase.end].split()[-2]
        yield number, phrase, word


class Caption:
    def __call__(self, picture: Image.Image, found: Found) -> Found:
        CALLS.append(("caption", found.caption))
        names = [name for name in COLOURS if seen(picture, name).sum() > 50]
        return replace(found, caption=" and ".join(f"a {name} box" for name in names) + " in the dust" * bool(names))


class Words:
    def __call__(self, picture: Image.Image, found: Found) -> Found:
        CALLS.append(("words", found.caption))
        spans = [one.span() for one in re.finditer(rf"an? (?:{'|'.join(COLOURS)}) \w+", found.caption)]
        return replace(found, phrases=tuple(Phrase(*span) for span in spans))


class Boxes:
    def __call__(self, picture: Image.Image, found: Found) -> Found:
        CALLS.append(("boxes", found.caption))
        phrases = list(found.phrases)
        for number, phrase, word in _phrases(found):
            rows, columns = np.nonzero(seen(picture, word))
            if len(rows):
                box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                phrases[number] = phrase._replace(box=tuple(map(float, box)), score=0.9)
        return replace(found, phrases=tuple(phrases))


class Masks:
    def __call__(self, picture: Image.Image, found: Found) -> Found:
        CALLS.append(("masks", found.caption))
        outlines = {number: seen(picture, word) for number, phrase, word in _phrases(found) if phrase.box}
        return replace(found, segments=painted(outlines, found.phrases, picture.size))


class Faces:
    """A colour is a person; every photo of it has a vector of its own, near the others."""

    def __call__(self, picture: Image.Image, found: Found) -> Found:
        CALLS.append(("faces", found.caption))
        faces = {}
        for number, phrase, word in _phrases(found):
            if phrase.box:
                vector = torch.eye(128)[list(COLOURS).index(word)] * 20
                vector += torch.from_numpy(np.random.default_rng(picture.getpixel((0, 0))[0]).normal(size=128)) * 0.1
                crop = torch.tensor(COLOURS[word], dtype=torch.uint8).expand(28, 28, 3).contiguous()
                faces[number + 1] = SegmentFace(vector.float(), crop)
        return replace(found, faces=faces, recogniser="dlib")


def plan(*stages: str) -> list[Planned]:
    """These of the stages above, all but faces where none is named."""
    return [Planned(one, f"truth:{one.title()}") for one in stages or ("caption", "words", "boxes", "masks")]
