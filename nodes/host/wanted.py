"""What a checkpoint wants beside itself, and whether it is there: said by Load MM-Diff, which sets nothing itself."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from ...mmdiff_core import MMDiff, MMDiffError
from ...mmdiff_core.checkpoint.ipadapter import kind
from ...mmdiff_core.encoders import encoder_name, fits
from . import folders
from .faces import face_files

_BASES = {"sd15": "SD1.5", "sdxl": "SDXL"}
_CLASS = ("vision_model.embeddings.class_embedding", "visual.class_embedding")
_PROJECTION = ("visual_projection.weight", "visual.proj")
"""Tensors whose shapes tell an encoder's widths, as transformers and as OpenCLIP name them."""


def report(mmdiff: MMDiff) -> str:
    """A line for each: the checkpoint itself, its vision encoder, the face models."""
    lines = [f"{kind(mmdiff)} for {_BASES[mmdiff.base]}"]
    wanted = mmdiff.vision_widths
    if wanted != (None, None):
        name = encoder_name(*wanted, f"one of hidden width {wanted[0]} and projection {wanted[1]}")
        found = [path.name for path in folders.vision_files() if fits(_widths(path), wanted)]
        lines.append(f"vision encoder: {name}, {_there(found, 'models/clip_vision')}")
    if mmdiff.spec.identity == "face":
        try:
            face_files(mmdiff.spec.recogniser)
            lines.append("faces: from Analyze Face, its models are there")
        except MMDiffError as error:
            lines.append(f"faces: from Analyze Face. {error}")
    return "\n".join(lines)


def _there(found: list[str], folder: str) -> str:
    return f"there as {' or '.join(found)}" if found else f"not found in {folder}"


def _widths(path: Path) -> tuple[int | None, int | None]:
    """Hidden and projection width of an encoder, from the head of its file; a pickle or a broken file tells nothing."""
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            hidden = next((file.get_slice(name).get_shape()[0] for name in _CLASS if name in names), None)
            projection = next((file.get_slice(name).get_shape() for name in _PROJECTION if name in names), None)
    except (OSError, SafetensorError):
        return None, None
    return hidden, next((side for side in projection or () if side != hidden), hidden if projection else None)
