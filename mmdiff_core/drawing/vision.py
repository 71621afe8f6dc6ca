"""The vision towers outside a host, by transformers: the original for patches, the tuned one for the CLS."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from ..encoders import fits
from ..errors import MMDiffError
from ..model.mmdiff import MMDiff
from ..photo import normalise


class VisionTowers:
    """Both towers of a checkpoint. original: the encoder it was trained from (openai/clip-vit-large-patch14); tuned:
    the checkpoint's copy of it, or the original itself."""

    def __init__(self, original: CLIPVisionModelWithProjection, tuned: CLIPVisionModelWithProjection) -> None:
        self.original = original
        self.tuned = tuned

    def cls(self, pixels: Tensor) -> Tensor:
        """(R, 3, S, S) prepared photos to the (R, cls width) projected CLS of the tuned tower."""
        return self.tuned(normalise(pixels).to(self.tuned.dtype)).image_embeds.float()

    def patches(self, pixels: Tensor) -> Tensor:
        """(R, 3, S, S) prepared crops to (R, P, patch width): all tokens before the last layer, CLS included, no LN."""
        return self.see_original(pixels)[1]

    def see(self, pixels: Tensor, seen: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """`cls` and `patches` of the same photos, in one go where the tower is not tuned. seen: what `see_original`
        gives, where it is known."""
        cls, patches = seen or self.see_original(pixels)
        return (cls if self.tuned is self.original else self.cls(pixels)), patches

    @torch.no_grad()
    def see_original(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What the original, which never trains, sees: its projected CLS and its patches."""
        seen = self.original(normalise(pixels).to(self.original.dtype), output_hidden_states=True)
        return seen.image_embeds.float(), seen.hidden_states[-2].float()


def tuned_tower(original: CLIPVisionModelWithProjection, mmdiff: MMDiff) -> CLIPVisionModelWithProjection:
    """A copy of the tower in full precision, with a checkpoint's tuned weights in place of its own.

    Raises MMDiffError where the tower is not the one that the checkpoint was trained from.
    """
    check_vision(original, mmdiff)
    tuned = copy.deepcopy(original).float()
    try:
        tuned.load_state_dict({**tuned.state_dict(), **mmdiff.vision}, assign=original.device.type == "meta")
    except RuntimeError as error:
        raise MMDiffError(
            f"The checkpoint's tuned vision weights do not fit the vision encoder ({error}). "
            "Use the encoder it was trained from."
        ) from error
    return tuned


def check_vision(original: CLIPVisionModelWithProjection, mmdiff: MMDiff) -> None:
    """Raises MMDiffError where the encoder's widths are not those the checkpoint was trained with."""
    config, wanted = original.config, mmdiff.vision_widths
    found = (config.hidden_size, getattr(config, "projection_dim", None))
    if not fits(found, wanted):
        raise MMDiffError(
            f"The vision encoder has hidden width {found[0]} and projection {found[1]}, the checkpoint wants "
            f"{wanted[0]} and {wanted[1]}. Use the encoder it was trained from."
        )
