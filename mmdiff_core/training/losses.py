"""The losses of one batch: denoising, and the constraint of each branch."""

from __future__ import annotations

import torch
from diffusers.training_utils import compute_snr
from torch import Tensor, nn

from ..constraint import mask_loss
from ..drawing.adapter import Encoded
from ..drawing.base import Base
from .batches import Batch
from .cache import CROPS, PHOTOS, PICTURES, TEXTS, Cache
from .trainee import Trainee

PARTS = ("denoise", "text", "image")


def losses(trainee: Trainee, batch: Batch, cache: Cache | None = None) -> dict[str, Tensor]:
    """Each (B,): the mean squared error of the prediction, and the constraints summed over the subjects they count.

    Sums, because the mean is over a whole step, of which this batch may be a part (`Batch.counts` has the divisors).
    cache: what the batch was looked up in.
    """
    base, loss = trainee.base, trainee.config.loss
    scheduler = base.scheduler
    shape = base.latent_shape(*batch.image.shape[-2:])
    latents = _latents(base, batch, cache) if batch.latents is None else batch.latents
    noise = batch.randn(shape, "noise")
    noisy = scheduler.add_noise(latents, noise, batch.time)
    maps = trainee.maps()
    conditions = trainee.conditions(batch.slots, batch.image.shape[-1], _encoded(trainee, batch, cache))
    predicted = trainee.predict(noisy, batch.time, conditions, maps)

    epsilon = scheduler.config.prediction_type == "epsilon"
    error = predicted - (noise if epsilon else scheduler.get_velocity(latents, noise, batch.time))
    inside = nn.functional.adaptive_avg_pool2d(batch.masks.amax(dim=1, keepdim=True), error.shape[-2:])
    error = error * torch.where(batch.masked[:, None, None, None], inside, 1.0)
    found = {"denoise": error.square().mean(dim=(1, 2, 3)) * _weight(base, batch.time, loss.snr_gamma)}
    for name, layers, counted in (("text", maps.text, batch.text), ("image", maps.image, batch.image_branch)):
        found[name] = torch.zeros_like(found["denoise"])
        if layers:
            each = mask_loss(list(layers.values()), batch.masks, loss.form)
            found[name] = torch.where(counted, each, 0.0).sum(dim=1)
    return found


def _weight(base: Base, time: Tensor, gamma: float) -> Tensor | float:
    """(B,) weights of the denoising loss by min-SNR (arXiv 2303.09556), 1 where gamma is 0."""
    if not gamma:
        return 1.0
    ratio = compute_snr(base.scheduler, time)
    epsilon = base.scheduler.config.prediction_type == "epsilon"
    return ratio.clamp(max=gamma) / (ratio if epsilon else ratio + 1)


def _latents(base: Base, batch: Batch, cache: Cache | None) -> Tensor:
    noise = batch.randn(base.latent_shape(*batch.image.shape[-2:]), "latents")
    if PICTURES not in batch.cached:
        return base.encode(batch.image, noise)

    def encode(place: int) -> dict[str, Tensor]:
        mean, deviation = base.moments(batch.image[place : place + 1])
        return {"mean": mean[0], "deviation": deviation[0]}

    found = cache.complete(PICTURES, batch.cached[PICTURES], encode)
    return base.latents(found["mean"], found["deviation"], noise)


def _encoded(trainee: Trainee, batch: Batch, cache: Cache | None) -> Encoded:
    """What the cache knows of the batch, and what it now learns."""
    slots, seen, crops, text = batch.slots, None, None, None
    dtype = trainee.base.vision.dtype
    if PHOTOS in batch.cached:
        photos = slots.references.flatten(0, 1)

        def see(place: int) -> dict[str, Tensor]:
            cls, patches = trainee.towers.see_original(photos[place : place + 1])
            return {"cls": cls[0].to(dtype), "patches": patches[0].to(dtype)}

        found = cache.complete(PHOTOS, batch.cached[PHOTOS], see)
        seen = found["cls"].float(), found["patches"].float()
    if CROPS in batch.cached:
        faces = slots.crops.flatten(0, 1)

        def look(place: int) -> dict[str, Tensor]:
            return {"patches": trainee.towers.patches(faces[place : place + 1])[0].to(dtype)}

        crops = cache.complete(CROPS, batch.cached[CROPS], look)["patches"].float()
    if TEXTS in batch.cached:

        def read(place: int) -> dict[str, Tensor]:
            ids = {name: one[place : place + 1] for name, one in slots.ids.items()}
            hidden, pooled = trainee.read(ids)
            return {"hidden": hidden[0]} | ({} if pooled is None else {"pooled": pooled[0]})

        found = cache.complete(TEXTS, batch.cached[TEXTS], read)
        text = found["hidden"], found.get("pooled")
    return Encoded(seen, crops, text)
