"""The losses of one batch: denoising, and the constraint of each branch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..constraint import mask_loss
from .batches import Batch
from .trainee import Trainee

PARTS = ("denoise", "text", "image")


def losses(trainee: Trainee, batch: Batch) -> dict[str, Tensor]:
    """Each (B,): the mean squared error of the prediction, and the constraints summed over the subjects they count.

    Sums, because the mean is over a whole step, of which this batch may be a part (`Batch.counts` has the divisors).
    """
    base, loss = trainee.base, trainee.config.loss
    scheduler = base.scheduler
    shape = base.latent_shape(batch.image.shape[-1])
    latents = base.encode(batch.image, batch.randn(shape, "latents")) if batch.latents is None else batch.latents
    noise = batch.randn(shape, "noise")
    noisy = scheduler.add_noise(latents, noise, batch.time)
    maps = trainee.maps()
    conditions = trainee.conditions(batch.slots, batch.image.shape[-1])
    predicted = trainee.predict(noisy, batch.time, conditions, maps)

    epsilon = scheduler.config.prediction_type == "epsilon"
    error = predicted - (noise if epsilon else scheduler.get_velocity(latents, noise, batch.time))
    inside = nn.functional.adaptive_avg_pool2d(batch.masks.amax(dim=1, keepdim=True), error.shape[-2:])
    error = error * torch.where(batch.masked[:, None, None, None], inside, 1.0)
    found = {"denoise": error.square().mean(dim=(1, 2, 3))}
    for name, layers, counted in (("text", maps.text, batch.text), ("image", maps.image, batch.image_branch)):
        found[name] = torch.zeros_like(found["denoise"])
        if layers:
            each = mask_loss(list(layers.values()), batch.masks, loss.form)
            found[name] = torch.where(counted, each, 0.0).sum(dim=1)
    return found
