"""Look at the world: `python -m mmdiff_core.world.sheet ATLAS.npz SHEET.png` draws scenes beside their references."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..errors import MMDiffError
from .scenes import WorldScenes
from .splits import SPLITS

SCENE, SIDE, TEXT = 192, 60, 38  # pixels: the scene, what stands beside it, the caption below


def sheet(scenes: WorldScenes, number: int, columns: int = 6) -> Image.Image:
    """The first scenes: each with its references, its masks in red and green, and its caption, names in brackets."""
    width, height = SCENE + SIDE + 8, SCENE + TEXT
    out = Image.new("RGB", (columns * width, -(-number // columns) * height), "white")
    draw = ImageDraw.Draw(out)
    for index in range(number):
        item = scenes[index]
        left, top = index % columns * width, index // columns * height
        enlarge = Image.Resampling.NEAREST if scenes.resolution < SCENE // 2 else Image.Resampling.BICUBIC
        out.paste(_image((item["image"] + 1) / 2).resize((SCENE, SCENE), enlarge), (left, top))
        masks = torch.cat([item["masks"], torch.zeros(3, *item["masks"].shape[1:])])[:3]
        for place, picture in enumerate([*item["references"], masks]):
            out.paste(_image(picture).resize((SIDE, SIDE)), (left + SCENE + 2, top + place * (SIDE + 2)))
        text = item["caption"]
        for start, end in reversed(item["entities"]):
            text = f"{text[:start]}[{text[start:end]}]{text[end:]}"
        draw.text((left, top + SCENE + 1), "\n".join(textwrap.wrap(text, 40)), "black", spacing=1)
    return out


def _image(pixels: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1]."""
    return Image.fromarray((pixels * 255).round().byte().movedim(0, -1).numpy())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mmdiff_core.world.sheet", description=__doc__)
    parser.add_argument("atlas", type=Path)
    parser.add_argument("sheet", type=Path, help="the picture to write")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--number", type=int, default=24)
    parser.add_argument("--looks", type=float, default=0.25, help="share of scenes that are not plain (default: 0.25)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        scenes = WorldScenes(
            arguments.atlas, arguments.resolution, 64, arguments.seed, arguments.split, looks=arguments.looks
        )
    except MMDiffError as error:
        print(error, file=sys.stderr)
        return 1
    sheet(scenes, arguments.number).save(arguments.sheet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
