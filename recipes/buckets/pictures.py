"""Pictures of the procedural world that are not square: scenes drawn larger, and cut around all of their subjects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmdiff_core.chance import stream
from mmdiff_core.data.annotated import AnnotatedScenes
from mmdiff_core.data.buckets import WIDEST, Shape
from mmdiff_core.demo import FOLDER
from mmdiff_core.world.scenes import WorldScenes
from recipes.demo.latents import Components

SIDE = 256  # of a scene before it is cut, twice what the demo draws


def write_records(scenes: WorldScenes, number: int, folder: Path) -> None:
    """The first scenes as annotated pictures, with the masks as they were drawn. What is there is left."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        path = folder / f"{index:05d}"
        if path.with_suffix(".json").exists():
            continue
        plan = scenes.plan(index)
        picture, masks = scenes.draw(plan)
        window = cut(masks, stream("cut", scenes.seed, index))
        Image.fromarray(picture[window]).save(path.with_suffix(".png"))
        np.save(path.with_suffix(".npy"), ((masks > 0.5) * np.arange(1, len(masks) + 1)[:, None, None]).max(0)[window])
        caption, spans = plan.caption()
        segments = [{"id": one, "start": start, "end": end} for one, (start, end) in enumerate(spans, 1)]
        path.with_suffix(".json").write_text(json.dumps({"caption": caption, "segments": segments}))


def cut(masks: np.ndarray, random: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a window that holds all of (S, H, H) masks: as long as the scene, upright where what they
    cover is, and of any aspect up to the widest that they leave room for, somewhere around them."""
    rows, columns = (np.nonzero(masks.any((0, axis)))[0] for axis in (2, 1))
    side, upright = masks.shape[1], np.ptp(rows) > np.ptp(columns)
    first, last = (columns if upright else rows)[[0, -1]]
    short = max(round(side / WIDEST ** random.random()), last + 1 - first)
    start = int(random.integers(max(0, last + 1 - short), min(first, side - short) + 1))
    across, along = slice(start, start + short), slice(0, side)
    return (along, across) if upright else (across, along)


class LatentPictures(AnnotatedScenes):
    """Annotated pictures whose items carry their latents, which spares training an encoder's work."""

    def __init__(
        self, folder: str, resolution: int, photo_size: int, seed: int, shapes: Sequence[Shape] = (), batch: int = 1
    ) -> None:
        super().__init__(folder, resolution, photo_size, seed, shapes=shapes, batch=batch)
        self.components = Components.load(FOLDER / "components.safetensors")

    def __getitem__(self, index: int) -> dict:
        item = super().__getitem__(index)
        return item | {"latents": self.components.encode(item["image"][None])[0]}
