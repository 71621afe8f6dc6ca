"""Where in the picture a subject may act: its region mask at a block's resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...mmdiff_core import Subject
from ...mmdiff_core.model.attention import grid
from .rows import DENSITY


def block_size(told: dict[str, Any], pixels: int, size: Sequence[int]) -> Sequence[int]:
    """(h, w) of a block of so many pixels: as it is told with its options, which another pack's block may leave out, or
    in the shape of the latent, of size (H, W)."""
    shape = told.get("activations_shape")
    return grid(pixels, *size) if shape is None else shape[-2:]


def reach(
    subjects: Sequence[Subject],
    sizes: Sequence[int],
    block: Sequence[int],
    places: Tensor | None,
    latent_size: Sequence[int],
    like: Tensor,
) -> Tensor | None:
    """(B, N, T) how far each subject token may act on each pixel of a block, or None where nothing is masked.

    sizes: tokens of each subject; block: (h, w) of the block; places: (B, 2, DENSITY H, DENSITY W) where these rows
    lie, see rows.places, needed where any is masked; latent_size: (H, W) of the whole latent. A mask always covers the
    whole picture.
    """
    if all(subject.region is None for subject in subjects):
        return None
    down, across = (
        (axis // DENSITY).long().clamp(max=side - 1)
        for axis, side in zip(places[..., ::DENSITY, ::DENSITY].unbind(dim=1), latent_size, strict=True)
    )
    columns = []
    for subject, size in zip(subjects, sizes, strict=True):
        if subject.region is None:
            mask = like.new_ones(len(down), block[0] * block[1])
        else:
            whole = _resized(subject.region.to(like.device)[None], latent_size)[0]
            mask = _resized(whole[down, across], block).flatten(1).to(like.dtype)
        columns.append(mask[..., None].expand(-1, -1, size))
    return torch.cat(columns, dim=-1)


def _resized(masks: Tensor, size: Sequence[int]) -> Tensor:
    """(B, H, W) masks at another size."""
    return nn.functional.interpolate(masks[:, None].float(), tuple(size), mode="area")[:, 0]
