"""How well a base knows scenes through noise: `python -m recipes.demo.by_noise WORK BASE`.

Of scenes of `val`, whose names no base was trained on, the mean squared error of the latents that it makes of noisy
ones, at a few timesteps: near pure noise it is decided what goes where, and where there is little, edges.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from mmdiff_core.training.batches import Collate, Indexed
from mmdiff_core.training.config import Drop

from .base import PHOTO, SIDE, Making, configuration, photos, scheduler
from .latents import LatentScenes
from .tokens import LENGTH

TIMESTEPS = (20, 50, 100, 200, 300, 450, 600, 800, 950)
SEED, SCENES, BATCH = 1, 96, 24
WITH = {"text alone": 1.0, "visual words": 0.0}  # share of samples whose references are left out


def read_making(work: Path, base: Path, scenes: LatentScenes) -> Making:
    """The parts of a base, visual words among them. work: with its tokenizer."""
    making = Making(len(CLIPTokenizer.from_pretrained(work / "tokenizer")), scenes.components)
    making.take(base)
    return making.eval()


@torch.no_grad()
def errors(making: Making, work: Path, scenes: LatentScenes, count: int) -> dict[str, list[float]]:
    """For text alone and for visual words, the errors at TIMESTEPS; the noise of a scene is the same at all of them."""
    noises = scheduler()
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer", model_max_length=LENGTH)
    found = {}
    for name, left_out in WITH.items():
        config = replace(configuration(work, 1, BATCH), seed=SEED, drop=Drop(0.0, left_out, 0.0))
        collate = Collate({"l": tokenizer}, config, noises.config.num_train_timesteps)
        sums = torch.zeros(len(TIMESTEPS))
        for first in range(0, count, BATCH):
            batch = collate([Indexed(scenes)[i] for i in range(first, min(first + BATCH, count))])
            noise = batch.randn(batch.latents.shape[1:], "noise")
            seen = making.look(photos(batch))
            for at, timestep in enumerate(TIMESTEPS):
                time = torch.full_like(batch.time, timestep)
                noisy = noises.add_noise(batch.latents, noise, time)
                velocity = making.predict(noisy, time, batch, *seen)
                kept = noises.alphas_cumprod[timestep]  # the share of the variance that is no noise yet
                clean = kept.sqrt() * noisy - (1 - kept).sqrt() * velocity  # the scheduler's own step clips its latents
                sums[at] += (clean - batch.latents).square().sum()
        found[name] = (sums / (count * batch.latents[0].numel())).tolist()
    return found


def main(work: Path, base: Path) -> None:
    """Print the table."""
    scenes = LatentScenes(work / "components.safetensors", work / "atlas.npz", SIDE, PHOTO, SEED, split="val")
    print(f"| timestep of 1,000 | {' | '.join(map(str, TIMESTEPS))} |\n|---{'|---' * len(TIMESTEPS)}|")
    for name, row in errors(read_making(work, base, scenes), work, scenes, SCENES).items():
        print(f"| with {name} | {' | '.join(f'{one:.4f}' for one in row)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m recipes.demo.by_noise", description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path, help="folder with atlas, components and tokenizer")
    parser.add_argument("base", type=Path, help="folder of a base, such as mmdiff_core/demo/model")
    arguments = parser.parse_args()
    main(arguments.work, arguments.base)
