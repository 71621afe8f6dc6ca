"""A cast looked for by the vision encoder, in regions that have a subject's colours and where its word acted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..photo import prepare_photos
from ..subject import Vision
from .colours import likely
from .likeness import Likeness, look_at
from .seen import Seen, homes_of, spread, window

SIDE = 128
"""Longer side at which colours are looked at, pixels. What is found is cut out of the picture itself."""
SMALLEST, MOST = 0.004, 6
"""Share of the picture that a region of a subject's colours has at least; and how many are looked at, the largest."""
NEAR, AROUND = 0.15, 0.6
"""A place where a word acted is larger than its map says by up to NEAR of its sides; it ends within AROUND."""
SAME = 0.3
"""Boxes that share this much of the smaller one are of one thing."""
DETAIL = 0.1
"""Difference of neighbouring pixels, colours summed, from which on a place is not empty."""


def by_pictures(
    picture: Tensor, cast: Sequence[Likeness], acted: list[Tensor | None], vision: Vision, photo: int, threshold: float
) -> Seen:
    """Whatever is like a subject by more than the threshold; and what stands where a subject's word acted.

    picture: (3, H, W) in [0, 1]. acted: as for `homes_of`. photo: side of prepared photos.
    """
    size = picture.shape[-2:]
    scale = SIDE / max(size)
    small_size = [max(round(side * scale), 1) for side in size]
    small = nn.functional.interpolate(picture[None], small_size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    places = [None if one is None else _place(spread(one, small.shape[-2:])) for one in acted]
    regions = [region for one in cast for region in _regions_of(one, small, places)]
    boxes, scores = torch.zeros(0, 4), torch.zeros(len(cast), 0)
    if regions:
        look = look_at(torch.cat([_cut_out(picture, region, photo) for region in regions]), vision)
        boxes = torch.stack([_box(region, size) for region in regions])
        boxes, scores = _distinct(boxes, torch.stack([one.scores(look) for one in cast]), threshold)
    for place, home in zip(places, homes_of(boxes, acted, size), strict=True):
        if place is not None and home is None and _detail(small, place) > DETAIL:
            boxes = torch.cat((boxes, _box(place, size)[None]))
            scores = torch.cat((scores, torch.zeros(len(cast), 1)), dim=1)
    return Seen(boxes, scores, homes_of(boxes, acted, size))


def _regions_of(one: Likeness, small: Tensor, places: Sequence[Tensor | None]) -> list[Tensor]:
    """Regions of a subject's colours, (h, w) bool each: against the whole picture, and in every place against what is
    around it."""
    regions = _connected(likely(small, one.colours, torch.ones_like(small[0], dtype=torch.bool)))
    for place in places:
        if place is not None:
            near = _grown(place, NEAR)
            regions += _connected(likely(small, one.colours, _grown(place, AROUND) & ~near) * near)
    return regions


def _connected(likely: Tensor) -> list[Tensor]:
    from scipy import ndimage  # it takes a while to import

    mask = ndimage.uniform_filter(likely.numpy(), 3) > 0.5
    mask = ndimage.binary_closing(np.pad(mask, 4), iterations=2)[4:-4, 4:-4]
    labels, number = ndimage.label(mask)
    sizes = ndimage.sum_labels(mask, labels, range(1, number + 1))
    largest = [label for label in np.argsort(-sizes)[:MOST] if sizes[label] >= SMALLEST * mask.size]
    return [torch.from_numpy(ndimage.binary_fill_holes(labels == label + 1)) for label in largest]


def _cut_out(picture: Tensor, region: Tensor, photo: int) -> Tensor:
    """(1, 3, photo, photo): the region alone, on black."""
    whole = nn.functional.interpolate(region[None, None].float(), picture.shape[-2:], mode="nearest")[0]
    rows, columns = window(_box(region, picture.shape[-2:]), picture.shape[-2:])
    return prepare_photos((picture * whole)[:, rows, columns].movedim(0, -1)[None], photo)


def _box(region: Tensor, size: tuple[int, int]) -> Tensor:
    """(4,) in pixels of the picture."""
    down, across = size[0] / region.shape[0], size[1] / region.shape[1]
    (top, bottom), (left, right) = _edges(region.any(1)), _edges(region.any(0))
    return torch.tensor([left * across, top * down, right * across, bottom * down])


def _edges(line: Tensor) -> tuple[int, int]:
    inside = line.nonzero()
    return int(inside[0]), int(inside[-1]) + 1


def _distinct(boxes: Tensor, scores: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Of boxes of one thing the likest to anybody, with the best score of any of them for each subject."""
    groups: list[list[int]] = []
    for one in scores.amax(0).argsort(descending=True).tolist():
        group = next((group for group in groups if _overlap(boxes[group[0]], boxes[one]) > SAME), None)
        if group is not None:
            group.append(one)
        elif scores[:, one].max() > threshold:
            groups.append([one])
    best = [group[0] for group in groups]
    return boxes[best], torch.stack([scores[:, group].amax(1) for group in groups], dim=1) if groups else scores[
        :, best
    ]


def _overlap(a: Tensor, b: Tensor) -> float:
    """What two boxes share, of the smaller one."""
    sides = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp_min(0)
    return float(sides.prod() / torch.minimum((a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod()).clamp_min(1e-9))


def _place(acted: Tensor) -> Tensor:
    """(h, w) bool: where a word acted at least half as much as where most."""
    return acted >= acted.max() / 2


def _grown(place: Tensor, share: float) -> Tensor:
    """(h, w) bool: the box around a place, larger by a share of its sides each way."""
    (top, bottom), (left, right) = _edges(place.any(1)), _edges(place.any(0))
    down, across = int(share * (bottom - top)), int(share * (right - left))
    box = torch.zeros_like(place)
    box[max(top - down, 0) : bottom + down, max(left - across, 0) : right + across] = True
    return box


def _detail(small: Tensor, place: Tensor) -> float:
    across, down = small.diff(dim=2).abs().sum(0), small.diff(dim=1).abs().sum(0)
    return float(across[place[:, 1:]].mean() + down[place[1:]].mean())
