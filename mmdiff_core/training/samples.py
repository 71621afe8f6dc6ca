"""Sheets of samples on the way: references, the real scene, and what the model draws now."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor, nn

from .batches import Batch
from .model import Trainee


@torch.no_grad()
def sample(trainee: Trainee, batch: Batch, unconditional: Batch, steps: int, guidance: float) -> Tensor:
    """Draw a batch's scenes from its own noise: (B, 3, H, W) in [-1, 1]."""
    return trainee.base.decode(sample_latents(trainee, batch, unconditional, steps, guidance))


@torch.no_grad()
def sample_latents(trainee: Trainee, batch: Batch, unconditional: Batch, steps: int, guidance: float) -> Tensor:
    """The latents of those scenes, (B, C, h, w)."""
    scheduler = DDIMScheduler.from_config(trainee.base.scheduler.config, clip_sample=False)
    scheduler.set_timesteps(steps, device=batch.image.device)
    shape = trainee.base.latent_shape(batch.image.shape[-1])
    latents = batch.randn(shape, "noise") * scheduler.init_noise_sigma
    conditions, without = trainee.conditions(batch), trainee.conditions(unconditional)
    for time in scheduler.timesteps:
        times = time.expand(len(latents))
        positive = trainee.predict(latents, times, conditions)
        negative = trainee.predict(latents, times, without)
        latents = scheduler.step(negative + guidance * (positive - negative), time, latents).prev_sample
    return latents


def write_sheet(path: Path, batch: Batch, drawn: Tensor) -> None:
    """A row for each scene: its references, the real scene, the sample."""
    side = batch.image.shape[-1]
    references = nn.functional.interpolate(batch.references.flatten(0, 1), (side, side), mode="bilinear")
    columns = (*references.unflatten(0, batch.references.shape[:2]).unbind(1), batch.image / 2 + 0.5, drawn / 2 + 0.5)
    sheet = torch.cat([torch.cat(list(column), dim=-2) for column in columns], dim=-1)
    pixels = (sheet.clamp(0, 1) * 255).round().byte().movedim(0, -1).cpu().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
