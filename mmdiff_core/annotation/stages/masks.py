"""The outline of what is in each box, by a model that segments what a box shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..found import Found, Phrase
from .pipelines import device, opened


class Masks:
    """SAM, SAM 2 and their kind, which are told by boxes."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForMaskGeneration, AutoProcessor

        task = "mask-generation"
        self.processor = opened(lambda: AutoProcessor.from_pretrained(folder), task, folder)
        self.model = opened(lambda: AutoModelForMaskGeneration.from_pretrained(folder), task, folder).to(device())

    @torch.no_grad()
    def __call__(self, picture: Image.Image, found: Found) -> Found:
        numbers = [number for number, one in enumerate(found.phrases) if one.box]
        if not numbers:
            return replace(found, segments=np.zeros(picture.size[::-1], np.uint8))
        boxes = [[list(found.phrases[number].box) for number in numbers]]
        inputs = self.processor(images=picture, input_boxes=boxes, return_tensors="pt").to(device())
        out = self.model(**inputs, multimask_output=False)
        sizes = [inputs[key].cpu() for key in ("original_sizes", "reshaped_input_sizes") if key in inputs]
        (masks,) = self.processor.post_process_masks(out.pred_masks.cpu(), *sizes)  # (boxes, 1, H, W)
        outlines = {number: mask[0].numpy().astype(bool) for number, mask in zip(numbers, masks, strict=True)}
        return replace(found, segments=painted(outlines, found.phrases, picture.size))


def painted(outlines: dict[int, np.ndarray], phrases: Sequence[Phrase], size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 of all phrases' (H, W) bool outlines; where several are, the smaller one is in front."""
    segments = np.zeros(size[::-1], np.uint8)
    for number in sorted(outlines, key=lambda one: -int(outlines[one].sum())):
        segments[outlines[number]] = number + 1
    return segments
