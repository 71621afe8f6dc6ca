"""Where in the picture a subject may act: its region mask at a block's resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...mmdiff_core import Subject


def reach(
    subjects: Sequence[Subject],
    sizes: Sequence[int],
    block: Sequence[int],
    area: tuple[int, ...] | None,
    latent_size: tuple[int, int],
    like: Tensor,
) -> Tensor | None:
    """(1, N, T) how far each subject token may act on each pixel of a block, or None where nothing is masked.

    sizes: tokens of each subject; block: (h, w) of the block; area: the crop (height, width, y, x) these rows are run
    on, in latent pixels; latent_size: (H, W) of the whole latent. A mask always covers the whole picture.
    """
    if all(subject.region is None for subject in subjects):
        return None
    columns = []
    for subject, size in zip(subjects, sizes, strict=True):
        if subject.region is None:
            mask = like.new_ones(block[0] * block[1])
        else:
            mask = _resized(subject.region.to(like.device), latent_size)
            if area is not None:
                height, width, top, left = area
                mask = mask[top : top + height, left : left + width]
            mask = _resized(mask, block).flatten().to(like.dtype)
        columns.append(mask[:, None].expand(-1, size))
    return torch.cat(columns, dim=1)[None]


def _resized(mask: Tensor, size: Sequence[int]) -> Tensor:
    return nn.functional.interpolate(mask[None, None].float(), tuple(size), mode="area")[0, 0]
