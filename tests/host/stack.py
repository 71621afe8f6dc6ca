"""A tiny SDXL UNet, both text encoders and a vision tower as real host objects; and those that were recorded."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sdxl_clip
import comfy.supported_models
import comfy.utils
import pytest
import torch
from comfy.clip_vision import ClipVisionModel
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"


@cache
def recording(variant: str) -> tuple[dict, dict[str, Tensor]]:
    """The cases of `reference` or `both_text_loras`, or a skip where the recordings are not there."""
    if not GOLDEN.exists():
        pytest.skip(f"no recordings at {GOLDEN}")
    described = json.loads((GOLDEN / f"{variant}.cases.json").read_text())
    return described, load_file(GOLDEN / f"{variant}.cases.safetensors")


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) + 1 :]: value for key, value in tensors.items() if key.startswith(prefix + ".")}


def sdxl_unet_config(described: dict) -> dict:
    """The host's description of a UNet, from that of the recordings."""
    unet = described["unet"]
    channels, depth = unet["block_out_channels"], unet["transformer_layers_per_block"]
    depth = [0, *depth[1:]]
    return {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": channels[0],
        "num_res_blocks": [2] * len(channels),
        "channel_mult": [c // channels[0] for c in channels],
        "transformer_depth": [d for d in depth for _ in range(2)],
        "transformer_depth_output": [d for d in depth for _ in range(3)],
        "transformer_depth_middle": depth[-1],
        "context_dim": unet["cross_attention_dim"],
        "num_heads": -1,
        "num_head_channels": channels[0] // unet["attention_heads"][0],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": True,
        "num_classes": "sequential",
        "adm_in_channels": described["text_g"]["projection_dim"] + 6 * 256,
        "use_temporal_attention": False,
        "legacy": False,
    }


class TinySDXL(comfy.supported_models.SDXL):
    unet_extra_config: dict = {}  # the host's own would make every head 64 wide


def unet_patcher(config: comfy.supported_models.supported_models_base.BASE, state: dict[str, Tensor] | None = None):
    """A model patcher of a supported configuration, with these weights or random ones."""
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device="cpu")
    if state is not None:
        names = comfy.utils.unet_to_diffusers(config.unet_config)
        state = {names[key]: value.float() for key, value in state.items()}
        missing, unexpected = model.diffusion_model.load_state_dict(state, strict=False)
        assert not missing and not unexpected, (missing, unexpected)
    device = torch.device("cpu")
    return comfy.model_patcher.CoreModelPatcher(model.eval(), load_device=device, offload_device=device)


def sdxl_clip(described: dict, stack: dict[str, Tensor] | None = None) -> comfy.sd.CLIP:
    """Both text encoders behind the host's own tokenizers, with these weights or random ones."""
    configs = {
        name: {**described[text], "eos_token_id": 49407} for name, text in (("clip_l", "text_l"), ("clip_g", "text_g"))
    }
    target = SimpleNamespace(params={}, clip=comfy.sdxl_clip.SDXLClipModel, tokenizer=comfy.sdxl_clip.SDXLTokenizer)
    options = {f"{name}_model_config": config for name, config in configs.items()}
    clip = comfy.sd.CLIP(target, model_options={**options, "dtype": torch.float32})
    for name, text in (("clip_l", "text_l"), ("clip_g", "text_g")) if stack is not None else ():
        state = {key: value.float() for key, value in under(stack, text).items()}
        missing, _ = getattr(clip.cond_stage_model, name).load_sd(state)
        assert all("text_projection" in key for key in missing), missing
    return clip


def clip_vision(config: dict, state: dict[str, Tensor] | None = None) -> ClipVisionModel:
    """A vision encoder of any size, with these weights or random ones; older hosts take only a configuration's path."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        json.dump({"model_type": "clip_vision_model", "num_channels": 3, **config}, file)
    encoder = ClipVisionModel(file.name)
    Path(file.name).unlink()
    if state is not None:
        missing, unexpected = encoder.load_sd({key: value.float() for key, value in state.items()})
        assert not missing and not unexpected, (missing, unexpected)
    return encoder


@cache
def golden() -> SimpleNamespace:
    """model, clip and clip_vision that were recorded, and the folder of their checkpoint. Never changed by a test."""
    described, _ = recording("reference")
    stack = load_file(GOLDEN / "stack.safetensors")
    config = TinySDXL(sdxl_unet_config(described))
    return SimpleNamespace(
        model=unet_patcher(config, under(stack, "unet")),
        clip=sdxl_clip(described, stack),
        clip_vision=clip_vision(described["vision"], load_file(GOLDEN / "clip_vision.safetensors")),
        checkpoint=GOLDEN / "official",
    )
