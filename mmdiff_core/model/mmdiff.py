"""MMDiff: one checkpoint in memory."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..spec import Spec
from .heads import Heads
from .lora import lora_tree
from .tensors import under


class MMDiff(nn.Module):
    """The parts of a checkpoint: heads, UNet LoRA, text-encoder LoRA, tuned vision weights, and the spec they run by.

    heads: the modules that run (see Heads).
    unet: LoRA pairs, and whole image projections, under the number of their attention layer. Layers are counted as
        diffusers counts attention processors: down blocks, up blocks, middle, self-attention before cross-attention.
    text: LoRA pairs under "l" / "g" and the transformers path below `text_model.encoder`.
    vision: tensors of the tuned vision tower by transformers names; those not here are the original tower's.
    source: content hash of the checkpoint, which subjects encoded with it remember.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        spec: Spec,
        source: str,
        operations: Any = nn,
        dtype: torch.dtype | None = torch.float32,
    ) -> None:
        """From the tensors of a checkpoint file; `dtype` is the heads' precision, None for the file's own."""
        super().__init__()
        own = {key: value for key, value in tensors.items() if not key.startswith("vision.")}
        with torch.device("meta"):
            self.heads = Heads(under(own, "heads"), spec.head_dim, operations)
            self.unet = lora_tree(under(own, "unet"))
            self.text = lora_tree(under(own, "text"))
        self.load_state_dict(own, assign=True)
        self.requires_grad_(False)
        if dtype is not None:
            self.heads.to(dtype)
        self.vision = under(tensors, "vision")
        self.spec = spec
        self.source = source

    @property
    def base(self) -> str:
        """Base family: "sdxl" with two text encoders, "sd15" with one."""
        return "sdxl" if len(self.heads.encoders) == 2 else "sd15"

    @property
    def tokens_per_reference(self) -> int | None:
        """Subject tokens that one photo gives, or None where every patch gives one."""
        return None if self.spec.identity == "patches" else self.heads.tokens_per_reference

    @property
    def vision_widths(self) -> tuple[int | None, int | None]:
        """Hidden and projection width of the vision encoder that subjects are encoded with, None for what is not read.

        Learned tokens of a face checkpoint look at the face vector, not at patches.
        """
        head, identity = self.heads.subject, self.spec.identity
        looks = head.refiner is not None and not (head.latents is not None and identity == "face")
        reads_cls = identity == "cls" or self.heads.entity is not None
        return (
            self.heads.patch_width if looks or identity == "patches" else None,
            self.heads.cls_width if reads_cls else None,
        )

    def with_spec(self, **changes: object) -> MMDiff:
        """The same weights run by another spec; nothing is copied. Raises MMDiffError for an unknown field or value."""
        other = copy.copy(self)
        other.spec = self.spec.replace(**changes)
        return other

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by the keys of a checkpoint file."""
        return {**self.state_dict(), **{f"vision.{key}": value for key, value in self.vision.items()}}
