"""What a subject looks like by its photos: its colours, and what the vision encoder makes of its parts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..subject import Vision
from .colours import histogram, shared

DARK = 0.03
"""What surrounds a subject that was cut out is darker than this in every channel."""
COVERED = 0.4
"""Share of a patch that has to be subject."""
TURN, ZOOM = 0.15, 0.9
"""Angle and scale by which a photo is changed to see how like a subject is to itself."""


@dataclass(frozen=True)
class Look:
    """N cut-out pictures as they are compared. patches: (N, P, D) of length 1. covered: (N, P) bool, those that show
    it. colours: (N, steps) histograms."""

    patches: Tensor
    covered: Tensor
    colours: Tensor

    def like(self, other: Look) -> Tensor:
        """(N, M): for each patch the likest one of the other picture, on average, both ways round."""
        alike = torch.einsum("npd,mqd->nmpq", self.patches, other.patches)
        alike = alike.masked_fill(~(self.covered[:, None, :, None] & other.covered[None, :, None, :]), -1.0)
        there, back = alike.amax(3), alike.amax(2)
        return (_mean(there, self.covered[:, None]) + _mean(back, other.covered[None])) / 2


@dataclass(frozen=True)
class Likeness:
    """A subject, to be found again.

    look: its photos and their mirror images. highest, lowest: how like the photos are to themselves, turned a little;
    and to their own negatives, about as unlike as strangers are.
    """

    look: Look
    highest: float
    lowest: float

    @property
    def colours(self) -> Tensor:
        """(steps,) of all its photos."""
        return self.look.colours.mean(0)

    def scores(self, seen: Look) -> Tensor:
        """(M,) of M pictures: half by parts, from `lowest` to `highest`, half by the share of equal colours."""
        parts = (self.look.like(seen).amax(0) - self.lowest) / max(self.highest - self.lowest, 1e-3)
        colours = shared(self.look.colours[:, None], seen.colours[None]).amax(0)
        return (parts.clamp(0, 1) + colours) / 2


def likeness(photos: Tensor, vision: Vision) -> Likeness:
    """Of a subject by its photos, (R, 3, S, S) uint8 as prepared, best cut out, on black."""
    photos = photos.float() / 255
    look = look_at(torch.cat((photos, photos.flip(-1))), vision)
    turned, negative = look_at(_turned(photos), vision), look_at((1 - photos) * _shown(photos)[:, None], vision)
    return Likeness(look, *(float(look.like(other).amax(0).mean()) for other in (turned, negative)))


def look_at(cut: Tensor, vision: Vision) -> Look:
    """(N, 3, S, S) prepared pictures of something cut out, on black."""
    patches = normalize(vision.patches(cut)[:, 1:].float().cpu(), dim=-1)
    shown = _shown(cut)
    side = math.isqrt(patches.shape[1])
    covered = nn.functional.interpolate(shown[:, None].float(), (side, side), mode="area").flatten(1) > COVERED
    covered |= ~covered.any(1, keepdim=True)  # a thing too thin for any patch
    return Look(patches, covered, torch.stack([histogram(one, where) for one, where in zip(cut, shown, strict=True)]))


def _shown(cut: Tensor) -> Tensor:
    return cut.amax(1) > DARK


def _turned(photos: Tensor) -> Tensor:
    cosine, sine = math.cos(TURN) / ZOOM, math.sin(TURN) / ZOOM
    turn = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]]).expand(len(photos), -1, -1)
    grid = nn.functional.affine_grid(turn, list(photos.shape), align_corners=False)
    return nn.functional.grid_sample(photos, grid, align_corners=False)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum(-1) / where.sum(-1)
