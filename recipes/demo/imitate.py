"""A start for the adapter: heads that say of a reference what the base's visual words said.

    python -m recipes.demo.imitate WORK CONFIG

A base takes long to teach a fresh adapter where to look in a photo, for it only says how wrong a whole picture was. Its
visual words have what the heads need, so these learn from them directly, for minutes instead of hours: no UNet
runs. Attention and LoRA stay fresh. What comes out is written where the configuration's `model.start` says.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset

from mmdiff_core.chance import stream
from mmdiff_core.checkpoint import save_checkpoint
from mmdiff_core.drawing.base import Base
from mmdiff_core.files import read_safetensors
from mmdiff_core.photo import normalise
from mmdiff_core.training.config import read_config
from mmdiff_core.training.trainee import Trainee
from mmdiff_core.world.scenes import WorldScenes

from .base import PHOTO, SIDE, WORDS_FILE, VisualWords

PHOTOS, BATCH, STEPS, RATE = 6000, 48, 1200, 2e-3


class References(Dataset):
    """The first reference of each scene, (3, P, P)."""

    def __init__(self, scenes: WorldScenes) -> None:
        self.scenes = scenes

    def __len__(self) -> int:
        return PHOTOS

    def __getitem__(self, index: int) -> Tensor:
        photo = self.scenes.reference(self.scenes.plan(index).subjects[0], stream("photos", index))
        return torch.from_numpy(photo.copy()).movedim(-1, 0).float() / 255


def main(work: Path, config_file: Path) -> None:
    """Train the heads of a configuration's fresh adapter, and write the checkpoint that it starts from."""
    config = read_config(config_file)
    out = Path(config.model.start)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, start=""))
    torch.manual_seed(config.seed)
    base = Base(config.base, config.vision, weights=True, dtype=torch.float32)
    words = VisualWords()
    words.load_state_dict(read_safetensors(Path(config.base) / WORDS_FILE)[0])
    cls, patches = _seen(base, work, config.seed)
    table = base.text["l"].get_input_embeddings().weight
    mmdiff = Trainee(base, config).mmdiff
    optimizer = torch.optim.AdamW(mmdiff.heads.parameters(), RATE, betas=(0.9, 0.98))
    for step in range(STEPS):
        chosen, tokens = torch.randint(len(cls), (BATCH,)), table[torch.randint(len(table), (BATCH,))]
        with torch.no_grad():
            wanted, entities = words(cls[chosen], patches[chosen].float())
        said = mmdiff.heads.subject(cls[chosen], patches[chosen].float())
        fused = mmdiff.heads.fuse_token("l", tokens, mmdiff.heads.entities(cls[chosen])["l"])
        losses = mse_loss(said, wanted), mse_loss(fused, tokens + entities)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 100) * (1 - step / STEPS)
        optimizer.zero_grad()
        sum(losses).backward()
        torch.nn.utils.clip_grad_norm_(mmdiff.heads.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}: words {losses[0]:.4f} of {wanted.var():.4f}, entity {losses[1]:.5f}", flush=True)
    save_checkpoint(mmdiff, out)


@torch.no_grad()
def _seen(base: Base, work: Path, seed: int) -> tuple[Tensor, Tensor]:
    """CLS (N, 128) and patches (N, 65, 128), in halves, of many references."""
    scenes = WorldScenes(work / "atlas.npz", SIDE, PHOTO, seed)  # not settled: photos of every kind
    seen = [
        base.vision(normalise(photos), output_hidden_states=True)
        for photos in DataLoader(References(scenes), batch_size=100, num_workers=1)
    ]
    return torch.cat([one.image_embeds for one in seen]), torch.cat([one.hidden_states[-2].half() for one in seen])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m recipes.demo.imitate")
    parser.add_argument("work", type=Path, help="folder with atlas, components and base")
    parser.add_argument("config", type=Path, help="the configuration that will be trained")
    arguments = parser.parse_args()
    main(arguments.work, arguments.config)
