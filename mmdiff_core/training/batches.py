"""Batches: scenes with all that is random about them, as a function of the run's seed and the sample's index alone.

So a batch is the same however many processes, workers or restarts lie between the start and it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..chance import stream
from ..constraint import has_gradient
from ..drawing.slots import Reader, Slots, on_device, padded
from ..prompt import BoundPrompt, Entity
from .cache import CROPS, PHOTOS, PICTURES, TEXTS, Cache, Lookup
from .config import Config


@dataclass(frozen=True)
class Batch:
    """B samples with up to S subjects, each of which has one entity word.

    image: (B, 3, H, W) in [-1, 1]; masks: (B, S, H, W) in [0, 1]; slots: what the model is given of captions and
    references, after drops. text, image_branch: (B, S) bool, which subjects the two constraints count.
    masked: (B,) bool, denoising counts inside the masks only; time: (B,) timesteps of the noise schedule.
    noise: a seed for each sample's noise; records: where each sample comes from.
    latents: (B, C, h, w) of the image where the data brings them, or None. cached: what a cache knows of pictures,
    photos and crops (those of the slots, one after another) and texts.
    """

    image: Tensor
    masks: Tensor
    slots: Slots
    text: Tensor
    image_branch: Tensor
    masked: Tensor
    time: Tensor
    noise: list[int]
    records: list[str]
    latents: Tensor | None = None
    cached: dict[str, Lookup] = field(default_factory=dict)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return on_device(self, device)

    def counts(self) -> Tensor:
        """(3,): samples, subjects that the text constraint counts, subjects that the image constraint counts."""
        return torch.stack([torch.tensor(len(self.records)), self.text.sum(), self.image_branch.sum()]).float()

    def whole(self) -> Slots:
        """The slots for pictures that are drawn at this size and not cut out of larger ones."""
        if self.slots.sizes is None:
            return self.slots
        size = torch.tensor(self.image.shape[-2:])
        sizes = torch.cat((size, torch.zeros_like(size), size)).to(self.slots.sizes).expand(len(self.records), -1)
        return replace(self.slots, sizes=sizes)

    def randn(self, shape: tuple[int, ...], purpose: str) -> Tensor:
        """(B, *shape) noise, the same for a sample on any device; purposes are independent of each other."""
        seeds = (int(stream(purpose, seed).integers(2**62)) for seed in self.noise)
        drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn).to(self.image.device)


class Indexed(Dataset):
    """A dataset whose items know their index."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.dataset[index], "index": index}


class Steps:
    """The indices of one process, batch by batch, for a range of steps.

    All processes' batches of a step together are `batch x accumulation x processes` consecutive indices.
    """

    def __init__(self, steps: range, batch: int, accumulation: int, process: int, processes: int) -> None:
        self.steps = steps
        self.batch = batch
        self.accumulation = accumulation
        self.process = process
        self.processes = processes

    def __len__(self) -> int:
        return len(self.steps) * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        for turn in range(self.steps.start * self.accumulation, self.steps.stop * self.accumulation):
            first = (turn * self.processes + self.process) * self.batch
            yield list(range(first, first + self.batch))


class Collate:
    """Items of a dataset to a Batch: tokens, entity words, dropped conditions, noise."""

    def __init__(
        self, tokenizers: Mapping[str, Any], config: Config, timesteps: int, cache: Cache | None = None
    ) -> None:
        """timesteps: of the noise schedule. cache: where to look for what frozen encoders say of a batch."""
        self.reader = Reader(tokenizers)
        self.config = config
        self.timesteps = timesteps
        self.cache = cache

    def __call__(self, items: Sequence[dict[str, Any]]) -> Batch:
        drop = torch.tensor([one.random() for one in self._streams("drop", items)])
        masked = torch.tensor([one.random() for one in self._streams("masked", items)])
        time = torch.tensor([int(one.integers(self.timesteps)) for one in self._streams("time", items)])
        shares = self.config.drop
        no_text = drop < shares.both + shares.text
        no_image = (drop < shares.both) | (~no_text & (drop < shares.both + shares.text + shares.image))

        size = max(1, *(len(item["entities"]) for item in items))
        present = torch.stack([torch.arange(size) < len(item["entities"]) for item in items])
        masks = torch.stack([padded(item["masks"], size) for item in items])
        words, found = self._words(items, size)
        valid = present & found & ~no_image[:, None] & ~self._left_out(items, size)
        worded = valid & ~no_text[:, None]
        seen = masks.flatten(2).any(dim=2)
        captions = ["" if empty else item["caption"] for item, empty in zip(items, no_text, strict=True)]
        slots = Slots(
            ids=self.reader.ids(captions),
            references=torch.stack([padded(item["references"], size) for item in items]),
            valid=valid,
            words=words,
            owners=torch.arange(size).expand(len(items), -1),
            fused=worded,
            sizes=torch.stack([item["sizes"] for item in items]) if "sizes" in items[0] else None,
            **{
                part: torch.stack([padded(item[part], size) for item in items])
                for part in ("faces", "crops")
                if part in items[0]
            },
        )
        image = torch.stack([item["image"] for item in items])
        latents = torch.stack([item["latents"] for item in items]) if "latents" in items[0] else None
        return Batch(
            image=image,
            masks=masks,
            slots=slots,
            text=worded & seen,
            image_branch=has_gradient(valid, self.config.model.null_token) & seen,
            masked=(masked < self.config.loss.masked) & (valid & seen).any(dim=1),
            time=time,
            noise=[int(one.integers(2**62)) for one in self._streams("noise", items)],
            records=[item["record"] for item in items],
            latents=latents,
            cached=self._cached(None if latents is not None else image, slots),
        )

    def _cached(self, image: Tensor | None, slots: Slots) -> dict[str, Lookup]:
        if self.cache is None:
            return {}
        ids = torch.stack(list(slots.ids.values()), dim=1)
        crops = None if slots.crops is None else slots.crops.flatten(0, 1)
        inputs = {PICTURES: image, PHOTOS: slots.references.flatten(0, 1), CROPS: crops, TEXTS: ids}
        wanted = {kind: inputs[kind] for kind in self.cache.encoders if inputs[kind] is not None}
        return {kind: self.cache.look(kind, values) for kind, values in wanted.items()}

    def _streams(self, purpose: str, items: Sequence[dict[str, Any]]) -> Iterator[np.random.Generator]:
        return (stream(purpose, self.config.seed, item["index"]) for item in items)

    def _left_out(self, items: Sequence[dict[str, Any]], size: int) -> Tensor:
        """(B, size) bool, the one of several subjects that is not bound."""
        left_out = torch.zeros(len(items), size, dtype=torch.bool)
        for row, (item, random) in enumerate(zip(items, self._streams("left out", items), strict=True)):
            count = len(item["entities"])
            if random.random() < self.config.drop.one and count > 1:
                left_out[row, random.integers(count)] = True
        return left_out

    def _words(self, items: Sequence[dict[str, Any]], size: int) -> tuple[dict[str, Tensor], Tensor]:
        """Positions of the entity words, and which of them stand in what is left of their captions."""
        words = {encoder: torch.zeros(len(items), size, dtype=torch.long) for encoder in self.reader.tokenizers}
        found = torch.ones(len(items), size, dtype=torch.bool)
        for row, item in enumerate(items):
            caption = item["caption"]
            bound = BoundPrompt(
                caption,
                tuple(
                    Entity(caption[start:end].split()[-1], end, number)
                    for number, (start, end) in enumerate(item["entities"])
                ),
            )
            for encoder, places in self.reader.places(bound).items():
                for number, place in enumerate(places):
                    words[encoder][row, number] = place or 0
                    found[row, number] &= place is not None
        return words, found
