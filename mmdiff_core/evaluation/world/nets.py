"""The networks that measure the procedural world: who is drawn where, in which scene, in which look.

They share nothing with what they measure: other architectures, weights, seed and names (the atlas's split `metric`).
They are never a loss and never choose a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, interpolate, max_pool2d, normalize

from ...data.augment import LUMA
from ...errors import MMDiffError
from ...files import read_safetensors, write_safetensors

PICTURE, CROP = 64, 48  # sides of what the networks see, pixels
GRID = 16
AROUND = 1.15  # a crop's side, as a share of the longer side of the subject's box
SURE = 0.3
MOST = 4


class Box(NamedTuple):
    """Where a subject was found; centre and sides as shares of the picture, sureness in [0, 1]."""

    x: float
    y: float
    width: float
    height: float
    sure: float


@dataclass(frozen=True)
class About:
    """What the networks know and how they came about. names: of the subjects they saw. atlas: its digest."""

    scenes: list[str]
    looks: list[str]
    names: list[str]
    atlas: str
    seed: int
    steps: int


def _step(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation)
    return nn.Sequential(conv, nn.GroupNorm(8, outputs), nn.SiLU())


class Who(nn.Module):
    """A crop, or a drawing on black, to a unit vector: which individual it is, or (colours left out) what kind."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.PixelUnshuffle(3), _step(27, 48), _step(48, 64, 2), _step(64, 96), _step(96, 128))
        self.look_at = nn.Conv2d(128, 4, 1)
        self.individual = nn.Linear(4 * 128, 96)
        self.kind = nn.Sequential(nn.Linear(4 * 128, 192), nn.SiLU(), nn.Linear(192, 64))
        self.sharpness = nn.Parameter(torch.tensor([2.0, 2.0]))

    def forward(self, crops: Tensor) -> Tensor:
        """(N, 3, CROP, CROP) in [0, 1] to (N, 96): the individual."""
        return normalize(self.individual(self._pooled(crops)), dim=1)

    def kinds(self, crops: Tensor) -> Tensor:
        """(N, 3, CROP, CROP) in [0, 1] to (N, 64): the kind of thing, whatever its colours."""
        grey = torch.einsum("nchw,c->nhw", crops, crops.new_tensor(LUMA))[:, None]
        return normalize(self.kind(self._pooled(grey.expand_as(crops))), dim=1)

    def _pooled(self, crops: Tensor) -> Tensor:
        features = self.trunk(crops * 2 - 1)
        weights = self.look_at(features).flatten(2).softmax(-1)
        return torch.einsum("nkp,ncp->nkc", weights, features.flatten(2)).flatten(1)


class Place(nn.Module):
    """A picture to the logits of its scene and of its look."""

    def __init__(self, scenes: int, looks: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(_step(3, 24, 2), _step(24, 48, 2), _step(48, 64, 2), _step(64, 96), _step(96, 96))
        self.scene, self.look = nn.Linear(96 * 16, scenes), nn.Linear(96 + 24, looks)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, PICTURE, PICTURE) in [0, 1]."""
        fine = self.trunk[0](pictures * 2 - 1)  # a look is in the texture as much as in the colours
        features = self.trunk[1:](fine)
        spots = nn.functional.adaptive_avg_pool2d(features, 4).flatten(1)
        return self.scene(spots), self.look(torch.cat((features.mean((2, 3)), fine.mean((2, 3))), 1))


class Where(nn.Module):
    """A picture to a grid that says where the middle of a subject is, and how far it reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.PixelUnshuffle(4), _step(48, 64), _step(64, 64, dilation=2), _step(64, 64, dilation=4)
        )
        self.head = nn.Sequential(_step(64, 64), nn.Conv2d(64, 5, 1))
        nn.init.constant_(self.head[1].bias[:1], -3.0)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, PICTURE, PICTURE) to logits (N, GRID, GRID) and (N, 4, GRID, GRID): offset x, y, width, height."""
        out = self.head(self.trunk(pictures * 2 - 1))
        return out[:, 0], out[:, 1:].sigmoid()


class MetricNets(nn.Module):
    """All of them, in one file."""

    def __init__(self, about: About) -> None:
        super().__init__()
        self.about = about
        self.who, self.where = Who(), Where()
        self.place = Place(len(about.scenes), len(about.looks))

    def save(self, path: Path) -> None:
        """In halves."""
        halves = {name: value.half() for name, value in self.state_dict().items()}
        write_safetensors(path, halves, {"mmdiff_metric_nets": json.dumps(asdict(self.about))})

    @classmethod
    def load(cls, path: Path) -> MetricNets:
        """Raises MMDiffError where the file is something else."""
        tensors, metadata = read_safetensors(path)
        if "mmdiff_metric_nets" not in metadata:
            raise MMDiffError(
                f"{path} holds no metric networks; choose a file that `python -m mmdiff_core evaluate nets` wrote."
            )
        nets = cls(About(**json.loads(metadata["mmdiff_metric_nets"])))
        nets.load_state_dict(tensors)
        return nets.eval().requires_grad_(False)

    @torch.inference_mode()
    def find(self, pictures: Tensor) -> list[list[Box]]:
        """(N, 3, PICTURE, PICTURE) in [0, 1] to the subjects of each, the surest first, MOST at the most.

        The surest is always among them, however faint it is; the others are at least SURE.
        """
        logits, boxes = self.where(pictures)
        heat = logits.sigmoid()
        peaks = heat * (max_pool2d(heat[:, None], 3, 1, 1)[:, 0] == heat)
        found = []
        for values, box in zip(peaks, boxes, strict=True):
            sure, cells = values.flatten().sort(descending=True)
            kept: list[Box] = []
            for value, cell in zip(sure[: 2 * MOST].tolist(), cells[: 2 * MOST].tolist(), strict=True):
                row, column = divmod(cell, GRID)
                dx, dy, width, height = box[:, row, column].tolist()
                one = Box((column + dx) / GRID, (row + dy) / GRID, width, height, value)
                if not kept or (value >= SURE and len(kept) < MOST and all(overlap(one, k) < 0.4 for k in kept)):
                    kept.append(one)
            found.append(kept)
        return found


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    across = min(a.x + a.width / 2, b.x + b.width / 2) - max(a.x - a.width / 2, b.x - b.width / 2)
    down = min(a.y + a.height / 2, b.y + b.height / 2) - max(a.y - a.height / 2, b.y - b.height / 2)
    both = max(across, 0) * max(down, 0)
    return both / max(a.width * a.height + b.width * b.height - both, 1e-6)


def cropped(pictures: Tensor, boxes: Sequence[tuple[float, float, float]]) -> Tensor:
    """Squares of pictures (N, 3, H, W), one each: centre x, y and side in shares; black beyond the edge.

    Returns (N, 3, CROP, CROP).
    """
    theta = torch.zeros(len(boxes), 2, 3)
    x, y, side = torch.tensor(boxes).T
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, 0, 2], theta[:, 1, 2] = x * 2 - 1, y * 2 - 1
    return grid_sample(pictures, affine_grid(theta, (len(boxes), 3, CROP, CROP), False), align_corners=False)


def square_around(box: Box) -> tuple[float, float, float]:
    """What to cut out to see a subject."""
    return box.x, box.y, AROUND * max(box.width, box.height)


def as_seen(pictures: Sequence[Tensor]) -> Tensor:
    """Pictures (3, H, W) of any size to (N, 3, PICTURE, PICTURE)."""
    size = (PICTURE, PICTURE)
    return torch.cat([interpolate(p[None], size, mode="bilinear", antialias=True).clamp(0, 1) for p in pictures])


def fitted(drawing: Tensor) -> Tensor:
    """A drawing (4, h, w), straight RGBA, with its longer side as long as in a crop; colours stay straight."""
    scale = CROP / AROUND / max(drawing.shape[-2:])
    shape = [max(1, round(side * scale)) for side in drawing.shape[-2:]]
    layers = torch.cat((drawing[:3] * drawing[3:], drawing[3:]))
    small = interpolate(layers[None], shape, mode="bilinear", antialias=True)[0]
    return torch.cat(((small[:3] / small[3:].clamp(min=1e-4)).clamp(0, 1), small[3:]))


def on_black(drawing: Tensor) -> Tensor:
    """A fitted drawing to a candidate (3, CROP, CROP): in the middle of a black square."""
    height, width = drawing.shape[-2:]
    square = torch.zeros(3, CROP, CROP)
    top, left = (CROP - height) // 2, (CROP - width) // 2
    square[:, top : top + height, left : left + width] = drawing[:3] * drawing[3:]
    return square
