"""Scenes that a run does not train on: their losses, always of the same noise and timesteps, and what looks where."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ..drawing.processors import Maps, mean_map
from ..sheet import Cell, sheet
from .batches import Batch, Collate, Indexed
from .config import Config, Drop
from .losses import PARTS, losses
from .trainee import Trainee

SHOWN = 8  # scenes on a sheet


class HeldOut:
    """The first scenes of a dataset, all conditions kept. Every process looks at all, for weights may be spread."""

    def __init__(self, config: Config, dataset: Any, tokenizers: dict[str, Any], timesteps: int) -> None:
        """timesteps: of the noise schedule."""
        kept = dataclasses.replace(config, drop=Drop(0, 0, 0), loss=dataclasses.replace(config.loss, masked=0.0))
        self.collate = Collate(tokenizers, kept, timesteps)
        self.items = Indexed(dataset)
        self.count = config.held.count
        self.size = config.train.batch
        self.subjects = dataset.max_subjects

    @torch.no_grad()
    def losses(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """The mean of each part, as a step of training says it. model: a Trainee, or what wraps it."""
        sums, counts = torch.zeros(len(PARTS)), torch.zeros(len(PARTS))
        for batch in self._batches(self.count):
            found = model(losses, batch.to(device))
            sums += torch.stack([found[part].sum() for part in PARTS]).cpu()
            counts += batch.counts()
        return dict(zip(PARTS, (sums / counts.clamp_min(1)).tolist(), strict=True))

    @torch.no_grad()
    def maps(self, model: nn.Module, device: torch.device) -> Image.Image:
        """A sheet, one scene a row: the scene, and of each subject its mask and where its word and its photo look, the
        mean of the constrained layers, white where most."""
        rows = []
        for batch in self._batches(min(self.count, SHOWN)):
            text, image = model(_looked_at, batch.to(device))
            for row, record in enumerate(batch.records):
                cells: list[Cell] = [(batch.image[row] / 2 + 0.5, record)]
                for subject in range(self.subjects):
                    there = subject < batch.slots.valid.shape[1] and bool(batch.slots.valid[row, subject])
                    for shown, name in ((batch.masks, "mask"), (text, "word"), (image, "photo")):
                        cells.append((_grey(shown[row, subject]), name) if there else (None, ""))
                rows.append(cells)
        return sheet(rows, side=96)

    def _batches(self, count: int) -> list[Batch]:
        firsts = range(0, count, self.size)
        return [self.collate([self.items[i] for i in range(one, min(one + self.size, count))]) for one in firsts]


def _looked_at(trainee: Trainee, batch: Batch) -> tuple[Tensor, Tensor]:
    """(B, S, 16, 16) each, where words and photos look in scenes half covered in noise."""
    base, size = trainee.base, batch.image.shape[-2:]
    time = torch.full_like(batch.time, base.scheduler.config.num_train_timesteps // 2)
    noise = batch.randn(base.latent_shape(*size), "noise")
    latents = (
        batch.latents
        if batch.latents is not None
        else base.encode(batch.image, batch.randn(noise.shape[1:], "latents"))
    )
    maps = Maps(trainee.layers, trainee.layers, trainee.null)
    trainee.predict(
        base.scheduler.add_noise(latents, noise, time), time, trainee.conditions(batch.slots, size[-1]), maps
    )
    return mean_map(maps.text, *size), mean_map(maps.image, *size)


def _grey(map_: Tensor) -> Tensor:
    return (map_ / map_.max().clamp_min(1e-6)).expand(3, -1, -1)
