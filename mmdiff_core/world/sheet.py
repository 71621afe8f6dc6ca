"""Look at the world: `python -m mmdiff_core.world.sheet ATLAS.npz SHEET.png` draws scenes beside their references."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from PIL import Image

from ..errors import MMDiffError
from ..sheet import sheet
from .scenes import WorldScenes
from .splits import SPLITS

SIDE, SCENES = 160, 3  # of a picture, pixels; of a row


def scenes_sheet(scenes: WorldScenes, number: int) -> Image.Image:
    """The first scenes: each with its references, its masks in red and green, and its caption, names in brackets."""
    shown = []
    for index in range(number):
        item = scenes[index]
        text = item["caption"]
        for start, end in reversed(item["entities"]):
            text = f"{text[:start]}[{text[start:end]}]{text[end:]}"
        masks = torch.cat([item["masks"], torch.zeros(3, *item["masks"].shape[1:])])[:3]
        references = [*item["references"], None][:2]
        shown.append([((item["image"] + 1) / 2, text), *((one, "") for one in (*references, masks))])
    rows = [sum(shown[start : start + SCENES], []) for start in range(0, number, SCENES)]
    return sheet(rows, SIDE, lines=3)


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
    scenes_sheet(scenes, arguments.number).save(arguments.sheet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
