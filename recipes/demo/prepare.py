"""What is known before training: `python -m recipes.demo.prepare WORK`, with the atlas in WORK.

Writes `components.safetensors`, what latents are, and `tokenizer`, the words of the training split's captions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mmdiff_core.world.atlas import Atlas
from mmdiff_core.world.scenes import WorldScenes

from .latents import CHANNELS, components, psnr
from .tokens import make_tokenizer

SCENES, HELD = 1800, 200
"""Scenes of the training split that components are taken from, and that they are tried on."""


def main(work: Path) -> None:
    scenes = WorldScenes(Atlas.load(work / "atlas.npz"), resolution=128, photo_size=16, seed=2, looks=0.15)
    images = torch.stack([scenes[index]["image"] for index in range(SCENES + HELD)])
    found, held = components(images[:SCENES]), images[SCENES:]
    found.save(work / "components.safetensors")
    error = (found.decode(found.encode(held)).clamp(-1, 1) - held).square().mean((1, 2, 3))
    print(f"{CHANNELS} components; scenes they were not taken from come back at {psnr(error):.1f} dB")
    print(f"{len(make_tokenizer(scenes, work / 'tokenizer'))} tokens")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m recipes.demo.prepare")
    parser.add_argument("work", type=Path, help="folder with atlas.npz")
    main(parser.parse_args().work)
