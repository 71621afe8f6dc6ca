"""The main job without a host: a photo becomes a subject file, with a small checkpoint made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from .checkpoint import load_checkpoint, save_checkpoint
from .errors import MMDiffError
from .model.fresh import Widths, fresh_mmdiff
from .photo import prepare_photos
from .spec import Spec
from .subject import encode_subject, save_subject
from .vision import VisionTowers

PHOTO = Path(__file__).parents[1] / "assets" / "cat.jpg"
WIDTHS = Widths(cls=96, patch=128, identity=96, context=128, tokens={"l": 64, "g": 96}, attention=[64, 64, 128, 128])


def run(image: Path, out: Path, name: str) -> str:
    """Encode one photo and write `out/checkpoint.safetensors`, `out/prepared.png` and `out/NAME.safetensors`.

    The weights are random, so the subject file is real in form and empty in meaning. Returns a report.
    """
    torch.manual_seed(0)
    spec = Spec(head_dim=32)
    save_checkpoint(fresh_mmdiff(WIDTHS, spec, rank=8), out / "checkpoint.safetensors")
    mmdiff = load_checkpoint(out / "checkpoint.safetensors")
    config = CLIPVisionConfig(
        hidden_size=WIDTHS.patch,
        projection_dim=WIDTHS.cls,
        intermediate_size=2 * WIDTHS.patch,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=spec.photo_size,
        patch_size=14,
    )
    towers = VisionTowers(CLIPVisionModelWithProjection(config), mmdiff)

    photo = _read(image)
    prepared = prepare_photos(photo, spec.photo_size)
    Image.fromarray((prepared[0].movedim(0, -1) * 255).byte().numpy()).save(out / "prepared.png")
    with torch.inference_mode():
        subject = encode_subject(
            mmdiff.heads, spec, mmdiff.source, prepared, None, towers.cls, towers.patches, name, weight=1.0
        )
    save_subject(subject, out / f"{name}.safetensors")
    entities = ", ".join(f"{len(value)} for CLIP-{encoder.upper()}" for encoder, value in subject.entity.items())
    return (
        f"checkpoint  {out / 'checkpoint.safetensors'} (small, random, {mmdiff.base})\n"
        f"photo       {image}, {photo.shape[2]} x {photo.shape[1]}\n"
        f"prepared    {out / 'prepared.png'}, {spec.photo_size} x {spec.photo_size}, padded with black\n"
        f"subject     {out / f'{name}.safetensors'}: {len(subject.tokens)} tokens of {subject.tokens.shape[1]}, "
        f"entity embeddings of {entities}"
    )


def _read(image: Path) -> torch.Tensor:
    """(1, H, W, 3) in [0, 1]."""
    try:
        return torch.from_numpy(np.array(Image.open(image).convert("RGB"))).float()[None] / 255
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise MMDiffError(f"{image} can't be read as a picture ({error}). Choose a JPEG, PNG or WebP file.") from error
