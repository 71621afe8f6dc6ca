"""CLIP and DINO of a local folder: pictures and prompts to unit vectors. Nothing is downloaded.

The preparation is that of the published tables: CLIP's shorter side to its own size, DINO's to 256, bicubic, then the
middle square of 224.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, CLIPModel, CLIPTokenizerFast
from transformers.utils import logging

from ...errors import MMDiffError
from ...photo import normalise

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DINO_SIDE = 224  # pixels, also for those that were trained at more
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Clip:
    """CLIP with both towers, as saved by transformers (the tables use openai/clip-vit-base-patch32)."""

    def __init__(self, folder: Path) -> None:
        _check(folder, {"clip"}, "openai/clip-vit-base-patch32")
        self.model = CLIPModel.from_pretrained(folder, local_files_only=True).eval().to(DEVICE)
        self.tokenizer = CLIPTokenizerFast.from_pretrained(folder, local_files_only=True)
        self.size = self.model.config.vision_config.image_size

    @torch.inference_mode()
    def pictures(self, pictures: Sequence[Tensor]) -> Tensor:
        """(3, H, W) in [0, 1] each, to (N, D) of length 1."""
        pixels = normalise(torch.stack([_square(picture, self.size, self.size) for picture in pictures]))
        pooled = self.model.vision_model(pixels.to(self.model.device)).pooler_output
        return nn.functional.normalize(self.model.visual_projection(pooled), dim=-1).cpu()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Prompts without markers to (N, D) of length 1; what is longer than the encoder reads is cut off."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        pooled = self.model.text_model(**tokens.to(self.model.device)).pooler_output
        return nn.functional.normalize(self.model.text_projection(pooled), dim=-1).cpu()


class Dino:
    """A DINO vision transformer, as saved by transformers (the tables use facebook/dino-vits16); its CLS counts."""

    def __init__(self, folder: Path) -> None:
        _check(folder, {"vit", "dinov2"}, "facebook/dino-vits16")
        self.model = AutoModel.from_pretrained(folder, local_files_only=True).eval().to(DEVICE)
        self.size = min(DINO_SIDE, self.model.config.image_size)

    @torch.inference_mode()
    def pictures(self, pictures: Sequence[Tensor]) -> Tensor:
        """(3, H, W) in [0, 1] each, to (N, D) of length 1."""
        pixels = torch.stack([_square(picture, round(self.size * 256 / 224), self.size) for picture in pictures])
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        seen = self.model(((pixels - mean) / std).to(self.model.device)).last_hidden_state[:, 0]
        return nn.functional.normalize(seen, dim=-1).cpu()


def _square(picture: Tensor, side: int, size: int) -> Tensor:
    """The shorter side to `side`, bicubic, rounded to 8 bits; then the middle `size` x `size`."""
    height, width = picture.shape[-2:]
    scale = side / min(height, width)
    shape = (max(side, round(height * scale)), max(side, round(width * scale)))
    resized = nn.functional.interpolate(picture[None], shape, mode="bicubic", antialias=True)[0]
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return (resized.clamp(0, 1) * 255).round()[:, top : top + size, left : left + size] / 255


def _check(folder: Path, types: set[str], example: str) -> None:
    logging.disable_progress_bar()
    if not (folder / "config.json").is_file():
        raise MMDiffError(
            f"There is no model in {folder} (no config.json). Nothing is downloaded here: put the folder of a model "
            f"such as {example} there, with config.json and model.safetensors."
        )
    found = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    if found not in types:
        raise MMDiffError(
            f"{folder} holds a '{found}' model; wanted is one like {example} ({' or '.join(sorted(types))})."
        )
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise MMDiffError(f"{folder} has a config.json but no weights; put model.safetensors beside it.")
