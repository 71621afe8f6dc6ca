"""Colours of a subject and where a picture has them (Swain and Ballard, "Color Indexing", 1991)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 8
"""Steps of red, green and blue that are told apart."""
_BLUR = (0.25, 0.5, 0.25)  # a colour at the edge of its step counts half for the next


def histogram(pixels: Tensor, where: Tensor) -> Tensor:
    """(3, H, W) in [0, 1] to the (LEVELS cubed,) shares of its colours, of the pixels `where`, (H, W) bool."""
    counts = torch.bincount(_steps(pixels)[where], minlength=LEVELS**3).float()
    cube = counts.view(1, 1, LEVELS, LEVELS, LEVELS)
    for axis in range(3):
        shape, padding = [1, 1, 1], [0, 0, 0]
        shape[axis], padding[axis] = 3, 1
        cube = nn.functional.conv3d(cube, cube.new_tensor(_BLUR).view(1, 1, *shape), padding=padding)
    return cube.flatten() / cube.sum().clamp_min(1e-9)


def shared(a: Tensor, b: Tensor) -> Tensor:
    """(...): how much of two histograms (..., steps) is the same, 1 for equal ones, 0 for no colour in common."""
    return torch.minimum(a, b).sum(-1)


def likely(pixels: Tensor, subject: Tensor, around: Tensor) -> Tensor:
    """(H, W): how much more a pixel's colour is the subject's than that of what is around, 0 to 1, 0.5 for as much."""
    other = histogram(pixels, around)
    return (subject / (subject + other).clamp_min(1e-9))[_steps(pixels)]


def _steps(pixels: Tensor) -> Tensor:
    red, green, blue = (pixels * LEVELS).long().clamp(0, LEVELS - 1).unbind(-3)
    return (red * LEVELS + green) * LEVELS + blue
