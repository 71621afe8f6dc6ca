"""What a run draws so far: the first scenes of its data, beside the real ones and their references."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from PIL import Image
from torch import nn

from ..drawing.sample import sample
from ..sheet import Cell, sheet
from .batches import Batch, Collate, Indexed
from .config import Config, Drop
from .trainee import Trainee

LARGEST = 256  # pixels of a picture's side on the sheet


class Samples:
    """The first scenes, all conditions kept, always of the same noise."""

    def __init__(self, config: Config, dataset: Any, trainee: Trainee) -> None:
        base = trainee.base
        self.wanted = config.samples
        self.collate = Collate(
            base.tokenizers,
            dataclasses.replace(config, drop=Drop(0, 0, 0)),
            base.scheduler.config.num_train_timesteps,
        )
        self.items = Indexed(dataset)
        self.subjects = dataset.max_subjects
        self.size = config.train.batch if config.data.buckets else config.samples.count  # that have one shape
        self.side = min(LARGEST, config.data.resolution)
        self.base, self.fuse_negative = base, trainee.mmdiff.spec.fuse_negative

    def drawn(self, model: nn.Module, device: torch.device) -> Image.Image:
        """A sheet, one scene a row. model: a Trainee, or what wraps it."""
        rows = []
        for first in range(0, self.wanted.count, self.size):
            chosen = range(first, min(first + self.size, self.wanted.count))
            rows += self._rows(self.collate([self.items[index] for index in chosen]).to(device), model)
        return sheet(rows, side=self.side)

    def _rows(self, batch: Batch, model: nn.Module) -> list[list[Cell]]:
        slots = batch.whole()
        without = self.collate.reader.without_subjects(slots, self.fuse_negative)
        noise = batch.randn(self.base.latent_shape(*batch.image.shape[-2:]), "noise")
        drawn = (
            self.base.decode(model(sample, slots, without, noise, self.wanted.steps, self.wanted.guidance)) / 2 + 0.5
        )
        rows: list[list[Cell]] = []
        for number, record in enumerate(batch.records):
            references: list[Cell] = [(one, "reference") for one in slots.references[number]]
            references += [(None, "")] * (self.subjects - len(references))
            rows.append([*references, (batch.image[number] / 2 + 0.5, record), (drawn[number], "drawn")])
        return rows
