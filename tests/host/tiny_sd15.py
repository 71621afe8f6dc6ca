"""A small random model and text encoder in SD1.5's layout, and a general checkpoint for it.

The vision tower is that of the tiny SDXL, as the real bases share one too.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import torch
from full_size import UNETS, fill, tensors
from graph import Pack, mmdiff, module
from stack import unet_patcher
from tiny_sdxl import sdxl

_UNET = {**UNETS["sd15"], "model_channels": 32, "context_dim": 768}
_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "eos_token_id": 49407,
}


@cache
def sd15() -> SimpleNamespace:
    """model and clip. Never changed by a test."""
    model = unet_patcher(comfy.supported_models.SD15(dict(_UNET)))
    fill(model.model.diffusion_model)
    target = SimpleNamespace(params={}, clip=comfy.sd1_clip.SD1ClipModel, tokenizer=comfy.sd1_clip.SD1Tokenizer)
    clip = comfy.sd.CLIP(target, model_options={"clip_l_model_config": _TEXT, "dtype": torch.float32})
    fill(clip.cond_stage_model)
    return SimpleNamespace(model=model, clip=clip)


def general_checkpoint(pack: Pack, folder: Path) -> Any:
    """What an MMDIFF_MODEL socket carries: random weights for `sd15()`, identity from the CLS, the clean spec."""
    core, vision = module(pack, "mmdiff_core"), sdxl().clip_vision.model
    layers = module(pack, "nodes.host.base").attention_layers(sd15().model.model.diffusion_model)
    identity = vision.visual_projection.weight.shape[0]
    weights = tensors(layers, sd15().clip.cond_stage_model, vision, identity, rank=4, depth=2)
    path = folder / "general.safetensors"
    core.save_checkpoint(core.MMDiff(weights, core.Spec(head_dim=32), ""), path)
    return mmdiff(pack, path)


def plus_adapter(pack: Pack, folder: Path) -> None:
    """An IP-Adapter Plus with random weights for `sd15()`, under the name of the published one."""
    from tests.ipadapters import random_parts, write  # the server's own process, which is given no tests, has no need

    layers = module(pack, "nodes.host.base").attention_layers(sd15().model.model.diffusion_model)
    hidden = sdxl().clip_vision.config["hidden_size"]
    attention = [layer.attention.to_q.out_features for layer in layers]
    folder.mkdir(parents=True)
    parts = random_parts("plus", attention=attention, hidden=hidden, depth=4)  # IPAdapter_plus reads no other depth
    write(parts, folder, "ip-adapter-plus_sd15.safetensors")
