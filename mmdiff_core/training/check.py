"""`train --check`: everything but training. Data, memory, time of a step, and the first batch as a sheet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from PIL import Image

from ..sheet import Cell, sheet
from .batches import Batch
from .config import Config
from .start import prepared, started

STEPS = 4  # the first one is not timed: it warms up


def check(config: Config) -> str:
    """Take some steps that nothing is kept of, and write `check.png` into `out`. Returns what was found, as lines.

    Raises MMDiffError for whatever would stop the run before or within its first steps.
    """
    trainer = prepared(config, started(config), state=None)
    batches, waits, takes = iter(trainer.batches(range(STEPS))), [], []
    for step in range(STEPS):
        start = perf_counter()
        found = [next(batches) for _ in range(config.train.accumulation)]
        waits.append(perf_counter() - start)
        if not step:
            picture = draw(found[0], trainer.trainee.base.tokenizers)
        trainer.step(step, found)
        takes.append(perf_counter() - start)
    path = Path(config.out) / "check.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    one, waited = median(takes[1:]), median(waits[1:])
    lines = [
        _records(trainer.dataset),
        f"A step takes {one:.2f} s, {waited:.2f} s of which the data are waited for; {config.train.steps} steps take "
        f"{_span(config.train.steps * one)}, and what is saved, drawn and measured between them comes on top.",
    ]
    if torch.cuda.is_available():
        lines.append(f"It took {torch.cuda.max_memory_allocated() / 1e9:.3g} GB of the GPU's memory.")
    return "\n".join([*lines, f"The first batch is drawn in {path}."])


def draw(batch: Batch, tokenizers: Mapping[str, Any]) -> Image.Image:
    """A batch as the model is given it, one sample a row: the picture with what is left of its caption, and of each
    subject its reference and mask."""
    name, tokenizer = next(iter(tokenizers.items()))
    texts = tokenizer.batch_decode(batch.slots.ids[name], skip_special_tokens=True)
    rows = []
    for row, text in enumerate(texts):
        cells: list[Cell] = [(batch.image[row] / 2 + 0.5, text.strip() or "(no text)")]
        for subject, valid in enumerate(batch.slots.valid[row]):
            if valid:
                cells.append((batch.slots.references[row, subject], "reference"))
                cells.append((batch.masks[row, subject].expand(3, -1, -1), "mask"))
        rows.append(cells)
    return sheet(rows, side=192, lines=3)


def _records(dataset: Any) -> str:
    """How much there is, where a source says so."""
    broken = getattr(dataset, "broken", [])
    size = f"{len(dataset)} records" if hasattr(dataset, "__len__") else "records without end"
    return f"Data: {size}, {len(broken)} left out; at most {dataset.max_subjects} subjects in one."


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes else f"{seconds:.0f} s"
