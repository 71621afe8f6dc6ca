"""A world of a few drawn shapes, and stand-ins for the metric networks that need no training."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from mmdiff_core.evaluation.world.nets import About, Box
from mmdiff_core.world.atlas import Atlas, Sprite
from mmdiff_core.world.scenes import Plan

FAMILIES = ("one", "two", "three", "four")
SHAPES = ("disc", "square", "bar", "cross", "ring", "wedge", "dots", "arch")
SPLITS = {"test": "", "metric": "new ", "val": "old "}


def shape(name: str, family: int) -> Image.Image:
    """A shape whose colours and inner mark depend on the family."""
    image = Image.new("RGBA", (48, 48))
    draw = ImageDraw.Draw(image)
    number = SHAPES.index(name)
    hue = (number * 4 + family) * 0.618 % 1
    colour = Image.new("HSV", (1, 1), (int(hue * 255), 230, 230 - 40 * (family % 3))).convert("RGB").getpixel((0, 0))
    forms = (
        lambda: draw.ellipse((1, 1, 46, 46), fill=colour),
        lambda: draw.rectangle((1, 1, 46, 46), fill=colour),
        lambda: draw.rectangle((1, 14, 46, 33), fill=colour),
        lambda: [draw.rectangle((18, 1, 29, 46), fill=colour), draw.rectangle((1, 18, 46, 29), fill=colour)],
        lambda: draw.ellipse((1, 1, 46, 46), outline=colour, width=12),
        lambda: draw.polygon([(24, 1), (46, 46), (1, 46)], fill=colour),
        lambda: [draw.ellipse((x, y, x + 21, y + 21), fill=colour) for x in (1, 25) for y in (1, 25)],
        lambda: draw.pieslice((1, 1, 46, 90), 180, 360, fill=colour),
    )
    forms[number]()
    mark = (20, 20, 20, 255) if family % 2 else (250, 250, 250, 255)
    draw.rectangle((8 + 8 * family, 20, 14 + 8 * family, 27), fill=mark)
    return image


def make_atlas(path: Path) -> Path:
    sprites, pictures = [], []
    for split, prefix in SPLITS.items():
        for name in SHAPES:
            for number, family in enumerate(FAMILIES):
                sprite = Sprite(f"{prefix}{name}", "a", "thing", family, family, "CC0-1.0", split, 48, 48)
                sprites.append(sprite)
                pictures.append(shape(name, number))
    Atlas.of(sprites, pictures).save(path)
    return path


class Pixels:
    """A crop as its pixels, folded in the middle, because scenes mirror their subjects."""

    def __call__(self, crops: Tensor) -> Tensor:
        middle = torch.nn.functional.adaptive_avg_pool2d(crops[:, :, 6:42, 6:42], 9)
        folded = (middle + middle.flip(-1)).flatten(1)
        return torch.nn.functional.normalize(folded - folded.mean(1, keepdim=True), dim=1)

    def kinds(self, crops: Tensor) -> Tensor:
        return self((crops.amax(1, keepdim=True) > 0.15).float().expand_as(crops))


class Known:
    """In place of trained networks: boxes from the plans, in the order of the pictures, and pixels as vectors."""

    def __init__(self, plans: Sequence[Plan], scenes: list[str], looks: list[str]) -> None:
        self.about = About(scenes, looks, [], "", 0, 0)
        self.plans = iter(plans)
        self.places = iter(plans)
        self.who = Pixels()

    def find(self, pictures: Tensor) -> list[list[Box]]:
        return [[Box(one.x, one.y, one.width, one.height, 1.0) for one in next(self.plans).subjects] for _ in pictures]

    def place(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        scene, look = torch.zeros(len(pictures), len(self.about.scenes)), torch.zeros(len(pictures), 9)
        for row in range(len(pictures)):
            plan = next(self.places)
            scene[row, self.about.scenes.index(plan.scene)] = 1
            look[row, self.about.looks.index(plan.look)] = 1
        return scene, look
