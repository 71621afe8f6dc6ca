"""Keys and values of subject tokens, by calling the block's own layers and correcting for the LoRAs.

K_s must be (W_k + dW_image) s, and the layer the host runs is W_k + dW_text (our LoRA, patched in) + whatever else the
user loaded. Calling it keeps fused, offloaded, fp8 and GGUF weights working; our text part is taken off again. A
checkpoint with whole image matrices, of the IP-Adapter family, needs nothing of the block.
"""

from __future__ import annotations

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...mmdiff_core import MMDiff
from ...mmdiff_core.model.lora import LoRAPair
from .base import Layer
from .lora import share


def keys_values(layer: Layer, tokens: Tensor, mmdiff: MMDiff, patcher: ModelPatcher) -> tuple[Tensor, Tensor]:
    """(T, D) subject tokens, on the layer's device and in its compute type, to (1, T, C) keys and values.

    patcher: the model's current patcher.
    """
    pairs = mmdiff.unet[str(layer.number)] if str(layer.number) in mmdiff.unet else {}  # noqa: SIM401 (a ModuleDict has no get)
    projected = []
    for name in ("to_k", "to_v"):
        if f"{name}_image" in pairs:
            out = tokens.float() @ pairs[f"{name}_image"].weight.to(tokens.device, torch.float32).T
        else:
            key = f"{layer.path}.{name}.weight"
            out = getattr(layer.attention, name)(tokens).float()
            if f"{name}_lora" in pairs:
                out = out - share(patcher.patches.get(key, ()), mmdiff) * _low_rank(pairs[f"{name}_lora"], tokens)
            if f"{name}_lora_image" in pairs:
                out = out + _low_rank(pairs[f"{name}_lora_image"], tokens)
        projected.append(out.to(tokens.dtype).unsqueeze(0))
    return projected[0], projected[1]


def _low_rank(pair: LoRAPair, tokens: Tensor) -> Tensor:
    down, up = (layer.weight.to(tokens.device, torch.float32) for layer in (pair.down, pair.up))
    return tokens.float() @ down.T @ up.T
