"""An untrained MMDiff for any base model: heads at their usual start, LoRA that does nothing yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..spec import Spec
from .heads import Heads
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

    The weights named here are those whose shapes decide all others (see Heads).

    rank: of the LoRA, 0 for none. hidden: width between the identity and the tokens; 0 is the reference's, twice the
    identity's. Where the spec's identity is "latents", tokens are learned, and the refiner is IP-Adapter's resampler.
    """
    hidden, context = hidden or 2 * widths.identity, widths.context
    shapes: dict[str, tuple[int, ...]] = {"entity.fc": (widths.cls, widths.cls)}
    for number, (encoder, token) in enumerate(widths.tokens.items(), 1):
        shapes[f"entity.proj_{number}"] = (token, widths.cls)
        shapes[f"fuse.{encoder}.fc1"] = (token, 2 * token)
        shapes[f"fuse.{encoder}.fc2"] = (token, token)
    learned = spec.identity == "latents"
    if not learned:
        shapes["subject.proj.0"] = (hidden, widths.identity)
        shapes["subject.proj.2"] = (tokens_per_reference * context, hidden)
        shapes["subject.layer_norm"] = (context,)
    shapes["subject.refiner.proj_in"] = (context, widths.patch)
    shapes["subject.refiner.proj_out"] = (context, context)
    for number in range(depth):
        shapes[f"subject.refiner.layers.{number}.0.to_q"] = (context, context)
        shapes[f"subject.refiner.layers.{number}.1.1"] = ((4 if learned else 2) * context, context)
    decisive = {f"{name}.weight": torch.empty(shape) for name, shape in shapes.items()}
    if learned:
        decisive["subject.latents"] = torch.empty(1, tokens_per_reference, context)
    heads = Heads(decisive, spec.head_dim)
    for module in heads.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # Tokens begin different from each other whatever the photo is, so that each can look at a place of its own.
    if learned:
        nn.init.normal_(heads.subject.latents, std=context**-0.5)
    else:
        nn.init.normal_(heads.subject.proj[2].bias)
    tensors = {f"heads.{name}": value for name, value in heads.state_dict().items()}

    def lora(name: str, wide: int, out: int) -> None:
        if rank:
            tensors[f"unet.{name}.down.weight"] = torch.randn(rank, wide) / rank
            tensors[f"unet.{name}.up.weight"] = torch.zeros(out, rank)

    for number, inner in enumerate(widths.attention):
        keyed = context if number % 2 else inner
        for name, wide in {"q": inner, "k": keyed, "v": keyed, "out": inner}.items():
            lora(f"{number}.to_{name}_lora", wide, inner)
        if number % 2:
            lora(f"{number}.to_k_lora_image", keyed, inner)
            lora(f"{number}.to_v_lora_image", keyed, inner)
    return MMDiff(tensors, spec, source="")
