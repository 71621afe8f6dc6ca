"""How much of a subject's attention lies on it, and how much on the other one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ...files import read_safetensors, write_safetensors
from ...world.scenes import WorldScenes
from .cases import WorldCase

if TYPE_CHECKING:
    from ...drawing.drawer import Drawer

MAPS = "attention.safetensors"
RECORDED = 64  # pairs whose maps are recorded


class Mass(NamedTuple):
    """Shares of a map's sum, (S,) each. own: inside the subject's mask; other: inside the other subjects' masks."""

    own: Tensor
    other: Tensor


def mass(maps: Tensor, masks: Tensor) -> Mass:
    """maps: (S, h, w), not negative. masks: (S, H, W) in [0, 1], not overlapping. The shares of an even map are the
    masks' areas, which is what no attention at all to subjects would score."""
    inside = adaptive_avg_pool2d(masks[None], maps.shape[-2:])[0]
    shares = torch.einsum("shw,thw->st", maps, inside) / maps.sum((1, 2)).clamp(min=1e-12)[:, None]
    own = shares.diagonal()
    return Mass(own, shares.sum(1) - own)


def record_maps(drawer: Drawer, scenes: WorldScenes, cases: Sequence[WorldCase], path: Path) -> None:
    """Write what a drawer attends to in real scenes of two subjects, half covered in noise: `BRANCH/CASE` -> (S, h, w).

    Real scenes, because there the masks are exact, and every arm is asked about the same pictures. What was written
    before of the same weights and cases is kept.
    """
    pairs = [case for case in cases if len(case.subjects) == 2][:RECORDED]
    key = hashlib.sha256(" ".join([drawer.source, *(case.key for case in pairs)]).encode()).hexdigest()
    if path.is_file() and read_safetensors(path)[1].get("key") == key:
        return
    maps = {}
    for case in pairs:
        picture = torch.from_numpy(scenes.draw(case.plan)[0]).movedim(-1, 0).float() / 255
        found = drawer.maps(picture, case.prompt, torch.stack(case.references), case.seed)
        maps |= {f"{branch}/{case.id}": values for branch, values in found.items()}
    write_safetensors(path, maps, {"key": key})
