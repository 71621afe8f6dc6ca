"""The vision encoders that people have, told by their widths."""

from __future__ import annotations

from pathlib import Path

from .errors import MMDiffError
from .files import read_shapes

_NAMES = {
    (1664, 1280): "CLIP ViT-bigG/14",
    (1280, 1024): "CLIP ViT-H/14",
    (1024, 768): "CLIP ViT-L/14",
    (768, 512): "CLIP ViT-B",
}
_CLASS = ("vision_model.embeddings.class_embedding", "visual.class_embedding")
_PROJECTION = ("visual_projection.weight", "visual.proj")
"""Tensors whose shapes tell an encoder's widths, as transformers and as OpenCLIP name them."""


def encoder_name(hidden: int | None, projection: int | None, unknown: str) -> str:
    """The name of the encoder with this hidden and projection width, None for either; `unknown` where it has none."""
    for widths, name in _NAMES.items():
        if fits(widths, (hidden, projection)):
            return name
    return unknown


def fits(found: tuple[int | None, int | None], wanted: tuple[int | None, int | None]) -> bool:
    """Whether an encoder's hidden and projection width are the wanted ones; None wants nothing."""
    return all(want is None or have == want for have, want in zip(found, wanted, strict=True))


def file_widths(path: Path) -> tuple[int | None, int | None]:
    """Hidden and projection width of an encoder, from the head of its file; a pickle or a broken file tells nothing."""
    try:
        shapes, _ = read_shapes(path)
    except (MMDiffError, OSError):
        return None, None
    hidden = next((shapes[name][0] for name in _CLASS if name in shapes), None)
    projection = next((shapes[name] for name in _PROJECTION if name in shapes), None)
    return hidden, next((side for side in projection or () if side != hidden), hidden if projection else None)
