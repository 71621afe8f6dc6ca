"""What was seen in one picture, whichever way it was looked at."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

ACTED = 1.0
"""A word acted in a box where its map is higher than in the mean of the picture, by this factor."""


class Seen(NamedTuple):
    """C whom or what a picture shows, beside the S subjects that are looked for.

    boxes: (C, 4) left, top, right, bottom in pixels. scores: (S, C), 1 as like as the subject is to itself, 0 as
    strangers are. homes: for each subject who stands where its word acted; None where nobody does, or it is not known
    where that is.
    """

    boxes: Tensor
    scores: Tensor
    homes: list[int | None]

    def area(self, one: int) -> float:
        """Of a box, in pixels."""
        return float((self.boxes[one][2:] - self.boxes[one][:2]).prod())


def homes_of(boxes: Tensor, acted: list[Tensor | None], size: tuple[int, int]) -> list[int | None]:
    """Who stands where each word acted.

    boxes: (C, 4) in pixels of a picture of `size`, height and width. acted: for each subject a map (h, w) of the whole
    picture in any scale, or None where there is none.
    """
    return [None if one is None or not len(boxes) else _home(boxes, one, size) for one in acted]


def window(box: Tensor, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a box within the picture, one at least of each."""
    left, top, right, bottom = (int(edge) for edge in box.round())
    left, top = min(max(left, 0), size[1] - 1), min(max(top, 0), size[0] - 1)
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def spread(acted: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (h, w) in a picture's size, (H, W)."""
    return nn.functional.interpolate(acted[None, None].float(), size, mode="bilinear")[0, 0]


def _home(boxes: Tensor, acted: Tensor, size: tuple[int, int]) -> int | None:
    whole = spread(acted, size)
    inside = torch.stack([whole[window(box, size)].mean() for box in boxes])
    best = int(inside.argmax())
    return best if inside[best] > ACTED * whole.mean() else None
