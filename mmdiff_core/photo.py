"""A reference photo made ready for the vision tower, to the bit as the reference does it (reference: datasets.py)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .errors import MMDiffError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
BAND = 1024
"""Rows that are resized at a time."""


def prepare_photos(
    photos: Tensor, size: int, masks: Tensor | None = None, mode: str = "bilinear", square: str = "padded"
) -> Tensor:
    """Make square, resize with antialiasing, round to 8 bits.

    photos: (R, H, W, 3 or 4) in [0, 1]; a fourth channel is opacity, and what is transparent becomes black.
    masks: (R or 1, H, W) in [0, 1], 1 on the subject; the rest becomes black. size: side of the result, pixels.
    mode, square: "bilinear" and "padded" with black, or as CLIP's own preprocessing "bicubic" and the "middle" alone.
    Returns (R, 3, size, size) in [0, 1], on multiples of 1/255. Raises MMDiffError for anything that is not a photo.
    """
    check_photos(photos)
    opacity = photos[..., 3:4] if photos.shape[-1] == 4 else torch.ones_like(photos[..., :1])
    if masks is not None:
        opacity = opacity * check_masks(masks, photos).unsqueeze(-1)
    pixels = (photos[..., :3].float() * opacity).clamp(0, 1).movedim(-1, 1)
    pixels = (pixels * 255).round()
    height, width = pixels.shape[-2:]
    if square == "middle":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels, height, width = pixels[..., top : top + side, left : left + side], side, side
    across, down = max(height - width, 0) // 2, max(width - height, 0) // 2
    # First the width, band by band: the same to the bit, and a long thin photo never becomes a square of its length.
    bands = [
        _resized(nn.functional.pad(band, (across, across)), band.shape[-2], size, mode)
        for band in pixels.split(BAND, dim=-2)
    ]
    pixels = _resized(nn.functional.pad(torch.cat(bands, dim=-2), (0, 0, down, down)), size, size, mode)
    return pixels.clamp(0, 255).round() / 255


def _resized(pixels: Tensor, height: int, width: int, mode: str) -> Tensor:
    return nn.functional.interpolate(pixels, (height, width), mode=mode, antialias=True)


def empty_photo(kind: str, size: int) -> Tensor:
    """(1, 3, size, size) of a prepared photo that shows nothing: "black", or "grey", which CLIP's mean makes zeros."""
    value = CLIP_MEAN if kind == "grey" else (0.0, 0.0, 0.0)
    return torch.tensor(value).view(1, 3, 1, 1).expand(-1, -1, size, size)


def normalise(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] to CLIP's zero mean and unit deviation."""
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (pixels - mean) / std


def check_photos(photos: Tensor) -> None:
    """Raises MMDiffError for anything that is not a batch of photos, (N, H, W, 3 or 4) of finite numbers."""
    if photos.ndim != 4 or photos.shape[-1] not in (3, 4):
        raise MMDiffError(
            f"The photos have shape {tuple(photos.shape)}; wanted is a batch of images, "
            "photos x height x width x 3 (or 4 with opacity)."
        )
    if not photos.is_floating_point():
        raise MMDiffError(f"The photos are of type {photos.dtype}; wanted are fractions from 0 to 1. Divide by 255.")
    if 0 in photos.shape:
        raise MMDiffError(f"The photos are empty, their shape is {tuple(photos.shape)}; connect at least one photo.")
    for number, photo in enumerate(photos, 1):
        if not photo.isfinite().all():
            raise MMDiffError(
                f"Photo {number} of {len(photos)} has pixels that are not numbers (NaN or infinite); "
                "the node that made it failed, look at its output."
            )


def check_masks(masks: Tensor, photos: Tensor) -> Tensor:
    """Masks of photos as (R or 1, H, W) in [0, 1].

    Raises MMDiffError for another size, another number, or what is no number.
    """
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.ndim != 3 or masks.shape[1:] != photos.shape[1:3] or len(masks) not in (1, len(photos)):
        raise MMDiffError(
            f"The mask has shape {tuple(masks.shape)} and the photos {tuple(photos.shape)}; wanted is one mask of the "
            "photos' height and width, or one for each photo. Resize it, or take the mask the photo was loaded with."
        )
    if not masks.isfinite().all():
        raise MMDiffError(
            "The mask has values that are not numbers (NaN or infinite); "
            "the node that made it failed, look at its output."
        )
    return masks.to(photos).clamp(0, 1)
