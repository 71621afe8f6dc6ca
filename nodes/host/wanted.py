"""What a checkpoint wants beside itself, and whether it is there: said by Load MM-Diff, which sets nothing itself."""

from __future__ import annotations

from ...mmdiff_core import MMDiff, MMDiffError
from ...mmdiff_core.checkpoint.ipadapter import kind
from ...mmdiff_core.doctor import BASES
from ...mmdiff_core.encoders import encoder_name, file_widths, fits
from . import folders
from .faces import face_files


def report(mmdiff: MMDiff) -> str:
    """A line for each: the checkpoint itself, its vision encoder, the face models."""
    lines = [f"{kind(mmdiff)} for {BASES[mmdiff.base]}"]
    wanted = mmdiff.vision_widths
    if wanted != (None, None):
        name = encoder_name(*wanted, f"one of hidden width {wanted[0]} and projection {wanted[1]}")
        found = [path.name for path in folders.vision_files() if fits(file_widths(path), wanted)]
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
