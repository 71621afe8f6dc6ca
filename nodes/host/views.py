"""Which part of the picture a pass covers, where a node that cuts the picture into tiles cuts conditionings too.

Ultimate SD Upscale samples every tile as a picture of its own. What it knows of in a conditioning it cuts to the tile,
and so the pictures that the host keeps there for models which look at reference pictures; the bases of MM-Diff do not.
A picture of places, put there, says where a tile lies.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

VIEW_KEY = "reference_latents"
SIDE = 64


def whole_view() -> Tensor:
    """(1, 2, SIDE, SIDE) how far down and across the whole picture each place lies, in (0, 1)."""
    centres = (torch.arange(SIDE) + 0.5) / SIDE
    return torch.stack(torch.meshgrid(centres, centres, indexing="ij"))[None]


def whole_latent(conds: Iterable[dict], size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size (H, W) of the latent that a run's latent of `size` is a part of, and where in it that part begins.

    Without a view among the conditionings the latent is whole.
    """
    views = (one for cond in conds for one in cond.get(VIEW_KEY, ()) if one.shape[1] == 2)  # a latent has 4 channels
    view = next(views, None)
    if view is None:
        return size, (0, 0)
    spans = [_span(view[0, 0].mean(dim=1)), _span(view[0, 1].mean(dim=0))]
    whole = tuple(round(side / length) for side, (_, length) in zip(size, spans, strict=True))
    return whole, tuple(round(start * side) for side, (start, _) in zip(whole, spans, strict=True))


def _span(places: Tensor) -> tuple[float, float]:
    """Where evenly spaced places begin and how far they reach; at the ends of the picture a resize flattens them."""
    count = len(places)
    first, last = count // 4, 3 * count // 4
    step = float(places[last] - places[first]) / (last - first)
    return float(places[first]) - step * (first + 0.5), step * count
