"""An untrained MMDiff for any base model: heads at their usual start, LoRA that does nothing yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..spec import Spec
from .mmdiff import MMDiff


@dataclass(frozen=True)
class Widths:
    """The widths of the models around a checkpoint.

    cls, patch: the vision encoder's projection and hidden width. identity: the vector tokens start from. context: the
    UNet's cross-attention width. tokens: each text encoder's token width, by "l" and "g". attention: the inner width of
    every attention layer of the UNet in a checkpoint's order, self- and cross-attention in turn.
    """

    cls: int
    patch: int
    identity: int
    context: int
    tokens: Mapping[str, int]
    attention: Sequence[int]


def fresh_mmdiff(
    widths: Widths, spec: Spec, rank: int = 64, tokens_per_reference: int = 4, depth: int = 4, hidden: int = 0
) -> MMDiff:
    """An untrained checkpoint; torch's random state decides its values, and every LoRA starts at no effect.

    hidden: width between the identity and the tokens; 0 is the reference's, twice the identity's.
    """
    hidden = hidden or 2 * widths.identity
    tensors: dict[str, Tensor] = {}

    def linear(name: str, wide: int, out: int, bias: bool = True) -> None:
        tensors[f"{name}.weight"] = torch.randn(out, wide) * wide**-0.5
        if bias:
            tensors[f"{name}.bias"] = torch.zeros(out)

    def norm(name: str, width: int) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = torch.ones(width), torch.zeros(width)

    def lora(name: str, wide: int, out: int) -> None:
        tensors[f"{name}.down.weight"] = torch.randn(rank, wide) / rank
        tensors[f"{name}.up.weight"] = torch.zeros(out, rank)

    norm("heads.entity.layernorm", widths.cls)
    linear("heads.entity.fc", widths.cls, widths.cls)
    for number, (encoder, token) in enumerate(widths.tokens.items(), 1):
        linear(f"heads.entity.proj_{number}", widths.cls, token)
        norm(f"heads.fuse.{encoder}.layernorm", 2 * token)
        linear(f"heads.fuse.{encoder}.fc1", 2 * token, token)
        linear(f"heads.fuse.{encoder}.fc2", token, token)

    context = widths.context
    linear("heads.subject.proj.0", widths.identity, hidden)
    linear("heads.subject.proj.2", hidden, tokens_per_reference * context)
    # Tokens begin different from each other whatever the photo is, so that each can look at a place of its own.
    tensors["heads.subject.proj.2.bias"] = torch.randn(tokens_per_reference * context)
    norm("heads.subject.layer_norm", context)
    linear("heads.subject.refiner.proj_in", widths.patch, context)
    for number in range(depth):
        layer = f"heads.subject.refiner.layers.{number}"
        norm(f"{layer}.0.norm1", context)
        norm(f"{layer}.0.norm2", context)
        linear(f"{layer}.0.to_q", context, context, bias=False)
        linear(f"{layer}.0.to_kv", context, 2 * context, bias=False)
        linear(f"{layer}.0.to_out", context, context, bias=False)
        norm(f"{layer}.1.0", context)
        linear(f"{layer}.1.1", context, 2 * context, bias=False)
        linear(f"{layer}.1.3", 2 * context, context, bias=False)
    linear("heads.subject.refiner.proj_out", context, context)
    norm("heads.subject.refiner.norm_out", context)

    for number, inner in enumerate(widths.attention):
        keyed = context if number % 2 else inner
        lora(f"unet.{number}.to_q_lora", inner, inner)
        lora(f"unet.{number}.to_k_lora", keyed, inner)
        lora(f"unet.{number}.to_v_lora", keyed, inner)
        lora(f"unet.{number}.to_out_lora", inner, inner)
        if number % 2:
            lora(f"unet.{number}.to_k_lora_image", keyed, inner)
            lora(f"unet.{number}.to_v_lora_image", keyed, inner)
    return MMDiff(tensors, spec, source="")
