"""The vision towers outside a host, by transformers: the original for patches, the tuned one for the CLS."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from .errors import MMDiffError
from .model.mmdiff import MMDiff
from .photo import normalise


class VisionTowers:
    """Both towers of a checkpoint. original: the encoder it was trained from (openai/clip-vit-large-patch14)."""

    def __init__(self, original: CLIPVisionModelWithProjection, mmdiff: MMDiff) -> None:
        heads, config = mmdiff.heads, original.config
        found, wanted = (
            (config.hidden_size, getattr(config, "projection_dim", None)),
            (heads.patch_width, heads.cls_width),
        )
        if found != wanted:
            raise MMDiffError(
                f"The vision encoder has hidden width {found[0]} and projection {found[1]}, the checkpoint wants "
                f"{wanted[0]} and {wanted[1]}. Use the encoder it was trained from."
            )
        self.original = original.eval()
        self.tuned = original
        if mmdiff.vision:
            self.tuned = copy.deepcopy(original)
            try:
                self.tuned.load_state_dict({**original.state_dict(), **mmdiff.vision})
            except RuntimeError as error:
                raise MMDiffError(
                    f"The checkpoint's tuned vision weights do not fit the vision encoder ({error}). "
                    "Use the encoder it was trained from."
                ) from error

    @torch.inference_mode()
    def cls(self, pixels: Tensor) -> Tensor:
        """(R, 3, S, S) prepared photos to the (R, cls width) projected CLS of the tuned tower."""
        return self.tuned(normalise(pixels)).image_embeds

    @torch.inference_mode()
    def patches(self, pixels: Tensor) -> Tensor:
        """(R, 3, S, S) prepared crops to (R, P, patch width): all tokens before the last layer, CLS included, no LN."""
        return self.original(normalise(pixels), output_hidden_states=True).hidden_states[-2]
