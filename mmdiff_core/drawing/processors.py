"""Multi-modal cross-attention inside a diffusers UNet, and the maps that it leaves where somebody asks for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..constraint import image_maps, text_maps
from ..model.attention import adapted, attend, grid, multimodal_cross_attention, subject_projection


class Maps:
    """What layers looked at, averaged over heads, by layer: `text`, (B, N, W) each, of the entity words; `image`,
    (B, N, S) each, of the subjects.

    No dataclass, because what shards a model over processes gives its blocks copies of those.
    """

    def __init__(self, text: Collection[str], image: Collection[str], null: Tensor | None = None) -> None:
        """text, image: the layers whose map of that branch is wanted. null: (1, 1, D) background token that competes in
        the image maps, or None."""
        self.text_layers = frozenset(text)
        self.image_layers = frozenset(image)
        self.null = null
        self.text: dict[str, Tensor] = {}
        self.image: dict[str, Tensor] = {}


def mean_map(layers: Mapping[str, Tensor], height: int, width: int) -> Tensor:
    """(B, N, S) of each layer, in a picture of height x width, to the mean of them all, (B, S, 16, 16)."""
    squares = [
        nn.functional.interpolate(
            one.float().mT.unflatten(-1, grid(one.shape[1], height, width)), (16, 16), mode="bilinear", antialias=True
        )
        for one in layers.values()
    ]
    return torch.stack(squares).mean(0).cpu()


@dataclass(frozen=True)
class Subjects:
    """What the attention layers know of a batch's subjects, and where they leave their maps, if anywhere.

    tokens: (B, T, D), the slots' tokens one after another; valid: (B, S) bool; words: (B, W), positions in the text;
    columns: as `Slots.columns`; guide: (B, L, D), the text that these are of, where it is not the row's own.
    """

    tokens: Tensor
    valid: Tensor
    words: Tensor
    columns: Tensor | None = None
    guide: Tensor | None = None
    maps: Maps | None = None


class SelfAttention:
    """Self-attention with LoRA."""

    def __init__(self, pairs: nn.ModuleDict) -> None:
        self.pairs = pairs

    def __call__(
        self, attn: Attention, hidden_states: Tensor, subjects: Subjects | None = None, **unused: Any
    ) -> Tensor:
        q, k, v = (adapted(getattr(attn, name), self.pairs, name, hidden_states) for name in ("to_q", "to_k", "to_v"))
        out = attend(q, k, v, attn.heads)
        return adapted(attn.to_out[0], self.pairs, "to_out", out)


class CrossAttention:
    """Multi-modal cross-attention."""

    def __init__(self, layer: str, pairs: nn.ModuleDict) -> None:
        self.layer = layer
        self.pairs = pairs

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        subjects: Subjects | None = None,
        **unused: Any,
    ) -> Tensor:
        maps = subjects.maps

        def record(q: Tensor, k: Tensor, k_subject: Tensor) -> None:
            # Recomputed in the backward pass rather than kept, since the maps of all tokens are large. Where a whole
            # block is recomputed, this runs again; to keep those maps would keep all that was recomputed with them.
            if self.layer in maps.text_layers:
                found = _recomputed(text_maps, q, k, subjects.words, attn.heads)
                maps.text.setdefault(self.layer, found)
            if self.layer in maps.image_layers:
                null = maps.null
                if null is not None:
                    null = subject_projection(attn, self.pairs, "to_k", null).expand(len(q), -1, -1)
                found = _recomputed(image_maps, q, k_subject, subjects.valid, attn.heads, null)
                maps.image.setdefault(self.layer, found)

        return multimodal_cross_attention(
            hidden_states,
            encoder_hidden_states,
            subjects.tokens,
            subjects.valid,
            attn,
            self.pairs,
            attn.heads,
            weight=1.0,
            observe=None if maps is None else record,
            columns=subjects.columns,
            guide=subjects.guide,
        )


def _recomputed(function: Any, *arguments: Any) -> Tensor:
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


def bind_unet(unet: UNet2DConditionModel, lora: nn.ModuleDict) -> None:
    """Give every attention layer of a UNet its LoRA pairs, by the number of the layer, as `MMDiff.unet` has them."""
    processors = {}
    for number, name in enumerate(unet.attn_processors):
        layer = name.removesuffix(".processor")
        pairs = lora[str(number)] if str(number) in lora else nn.ModuleDict()
        cross = layer.endswith("attn2")
        processors[name] = CrossAttention(layer, pairs) if cross else SelfAttention(pairs)
    unet.set_attn_processor(processors)
