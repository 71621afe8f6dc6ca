"""Which base model this is, and its attention layers in the order a checkpoint counts them."""

from __future__ import annotations

from typing import NamedTuple

import comfy.supported_models
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.model_patcher import ModelPatcher

from ...mmdiff_core import MMDiff, MMDiffError

FAMILIES = {"sdxl": comfy.supported_models.SDXL, "sd15": comfy.supported_models.SD15}
_SPOKEN = {"sdxl": "SDXL", "sd15": "Stable Diffusion 1.5"}


class Layer(NamedTuple):
    """One attention layer of a UNet.

    number: its place in a checkpoint's count. slot: the host's key of its transformer block, (name, id, index).
    path: module path below the host's model. attention: the module. cross: whether it looks at the prompt.
    """

    number: int
    slot: tuple[str, int, int]
    path: str
    attention: torch.nn.Module
    cross: bool


def attention_layers(diffusion_model: torch.nn.Module) -> list[Layer]:
    """Every attention layer, numbered as diffusers counts processors: down, up, middle, self before cross."""
    unet = getattr(diffusion_model, "_orig_mod", diffusion_model)  # torch.compile wraps the module
    groups = [
        *(("input", number, f"input_blocks.{number}", block) for number, block in enumerate(unet.input_blocks)),
        *(("output", number, f"output_blocks.{number}", block) for number, block in enumerate(unet.output_blocks)),
        ("middle", 0, "middle_block", unet.middle_block),
    ]
    layers = []
    for name, number, path, block in groups:
        for child, module in block.named_children():
            if not isinstance(module, SpatialTransformer):
                continue
            for index, transformer in enumerate(module.transformer_blocks):
                for attention in ("attn1", "attn2"):
                    layers.append(
                        Layer(
                            number=len(layers),
                            slot=(name, number, index),
                            path=f"diffusion_model.{path}.{child}.transformer_blocks.{index}.{attention}",
                            attention=getattr(transformer, attention),
                            cross=attention == "attn2",
                        )
                    )
    return layers


def check_base(model: ModelPatcher, mmdiff: MMDiff) -> list[Layer]:
    """The attention layers of a model that fits the checkpoint. Raises MMDiffError naming the base that does not."""
    config = model.model.model_config
    wanted = _SPOKEN[mmdiff.base]
    if not isinstance(config, FAMILIES[mmdiff.base]):
        raise MMDiffError(
            f"Apply MM-Diff Attention: the model is {type(config).__name__}, the checkpoint was trained for {wanted}. "
            f"Connect a model made for {wanted}."
        )
    layers = attention_layers(model.model.diffusion_model)
    numbers = {int(number) for number in mmdiff.unet}
    if numbers and max(numbers) + 1 != len(layers):
        raise MMDiffError(
            f"Apply MM-Diff Attention: the model ({type(config).__name__}) has {len(layers)} attention layers, the "
            f"checkpoint has weights for layer {max(numbers)} as its last, counted from 0. It was trained on another "
            f"variant of {wanted}: distilled ones (SSD-1B, Vega and KOALA of SDXL) have fewer layers. Connect the "
            "model it was trained on."
        )
    _check_image_matrices(layers, mmdiff, type(config).__name__)
    return layers


def _check_image_matrices(layers: list[Layer], mmdiff: MMDiff, found: str) -> None:
    """Matrices of the subjects' own are used in every cross-attention layer, and added to nothing that would check."""
    if not any("to_k_image" in layer for layer in mmdiff.unet.values()):
        return
    for layer in layers:
        if layer.cross:
            number, base = str(layer.number), layer.attention.to_k
            own = mmdiff.unet[number]["to_k_image"] if number in mmdiff.unet else None
            shape = own and (own.in_features, own.out_features)
            if shape != (base.in_features, base.out_features):
                raise MMDiffError(
                    f"Apply MM-Diff Attention: layer {number} of the model ({found}) takes {base.in_features} numbers "
                    f"and gives {base.out_features}, the checkpoint's matrices for it {shape or 'are not there'}. It "
                    f"was trained on another variant of {_SPOKEN[mmdiff.base]}."
                )
