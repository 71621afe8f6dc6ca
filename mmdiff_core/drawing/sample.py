"""Sampling: noise and conditions to latents."""

from __future__ import annotations

import dataclasses

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from .adapter import Adapter
from .slots import Slots


@torch.no_grad()
def sample(adapter: Adapter, slots: Slots, unconditional: Slots, noise: Tensor, steps: int, guidance: float) -> Tensor:
    """Latents, (B, C, h, w), of what the slots say, from noise of that shape, by DDIM with classifier-free guidance."""
    base = adapter.base
    scheduler = DDIMScheduler.from_config(base.scheduler.config, clip_sample=False)
    scheduler.set_timesteps(steps, device=noise.device)
    side = noise.shape[-1] * base.latent_pixel
    conditions, without = (adapter.conditions(one, side) for one in (slots, unconditional))
    # What an empty photo leaves to these rows acts where the subjects do, and nowhere else.
    without = dataclasses.replace(without, subjects=dataclasses.replace(without.subjects, guide=conditions.text))
    latents = noise * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        times = time.expand(len(latents))
        positive = adapter.predict(latents, times, conditions)
        negative = adapter.predict(latents, times, without)
        latents = scheduler.step(negative + guidance * (positive - negative), time, latents).prev_sample
    return latents
