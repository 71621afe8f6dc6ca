"""Models and checkpoints of the real shapes with random weights, made in seconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.clip_vision
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import torch
from torch import Tensor, nn

UNETS = {
    "sdxl": {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 320,
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "context_dim": 2048,
        "num_head_channels": 64,
        "num_classes": "sequential",
        "adm_in_channels": 2816,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": True,
        "use_temporal_attention": False,
        "legacy": False,
    },
    "sd15": {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 320,
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "context_dim": 768,
        "num_heads": 8,
        "adm_in_channels": None,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "use_temporal_attention": False,
        "legacy": False,
    },
}
"""The base models' own shapes, in the host's terms."""

_CONFIGS = {"sdxl": comfy.supported_models.SDXL, "sd15": comfy.supported_models.SD15}
_TEXT = {
    "sdxl": (comfy.sdxl_clip.SDXLClipModel, comfy.sdxl_clip.SDXLTokenizer),
    "sd15": (comfy.sd1_clip.SD1ClipModel, comfy.sd1_clip.SD1Tokenizer),
}
_CUSTOM = {
    "vision": "image_encoder",
    "heads.entity": "obj_embeds_proj",
    "heads.subject": "face_embeds_proj",
    "heads.fuse.l": "mm_fuse_one",
    "heads.fuse.g": "mm_fuse_two",
}
_VALUES = torch.randn(2**22 - 3, generator=torch.Generator().manual_seed(0))  # an odd count, so that no rows are equal


@cache
def _values(fan_in: int, dtype: torch.dtype) -> Tensor:
    return (_VALUES * fan_in**-0.5).to(dtype)


def randomise(weight: Tensor) -> Tensor:
    """Overwrite a weight with small random values, 1 / sqrt(fan in) wide: one random block over and over."""
    values = _values(weight[0].numel(), weight.dtype)
    for part in weight.view(-1).split(values.numel()):
        part.copy_(values[: part.numel()])
    return weight


def fill(model: nn.Module, shared: bool = False) -> None:
    """Give a model random weights, norms of 1 and biases of 0.

    shared: weights of one shape become one tensor, so that a model needs a fraction of its memory; a step computes as
    much as before.
    """
    pool: dict[torch.Size, Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            parameter.data.fill_(0.0 if name.endswith("bias") else 1.0)
        elif shared and parameter.shape in pool:
            parameter.data = pool[parameter.shape]
        else:
            pool[parameter.shape] = randomise(parameter.data)


def unet(
    base: str, dtype: torch.dtype, compute: torch.dtype | None = None, shared: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """The UNet of "sdxl" or "sd15", held in one type and run in another (None: the same)."""
    config = _CONFIGS[base](UNETS[base])
    config.set_inference_dtype(dtype, compute)
    model = config.get_model({}, "", device="cpu").eval()
    fill(model.diffusion_model, shared)
    device = torch.device("cpu")
    return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=device)


def clip(base: str) -> comfy.sd.CLIP:
    """The base's text encoders in full depth and width: CLIP-L, and for SDXL also bigG."""
    model, tokenizer = _TEXT[base]
    target = SimpleNamespace(params={}, clip=model, tokenizer=tokenizer)
    encoders = comfy.sd.CLIP(target, model_options={"dtype": torch.float16})
    fill(encoders.cond_stage_model)
    return encoders


def clip_vision() -> comfy.clip_vision.ClipVisionModel:
    """CLIP ViT-L/14."""
    encoder = comfy.clip_vision.ClipVisionModel(
        str(Path(comfy.clip_vision.__file__).with_name("clip_vision_config_vitl.json"))
    )
    fill(encoder.model)
    return encoder


def released_tensors(tensors: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    """A checkpoint's tensors as the contents of the three released files, by name."""
    unet, text, custom = {}, {}, {part: {} for part in _CUSTOM.values()}
    for key, value in tensors.items():
        if key.startswith("unet."):
            unet[key.removeprefix("unet.")] = value
        elif key.startswith("text."):
            _, encoder, path = key.split(".", 2)
            name = "text_encoder" if encoder == "l" else "text_encoder_2"
            path, side, _ = path.rsplit(".", 2)
            text[f"{name}.text_model.encoder.{path}.lora_linear_layer.{side}.weight"] = value
        else:
            ours = next(prefix for prefix in _CUSTOM if key.startswith(prefix + "."))
            custom[_CUSTOM[ours]][key.removeprefix(ours + ".")] = value
    return {
        "unet_adapter_weights.bin": unet,
        "text_encoder_adapter_weights.bin": text,
        "custom_weights.bin": custom,
    }


def tensors(
    layers: list[Any], text: nn.Module, vision: nn.Module, identity: int, rank: int = 64, depth: int = 4
) -> dict[str, Tensor]:
    """A random checkpoint in half precision, by the keys of our own format, for a UNet's attention layers.

    layers: of the pack's `attention_layers`; text: the host's text encoders; vision: the tower, tuned in full;
    identity: width of the vector subject tokens start from.
    """
    found: dict[str, Tensor] = {}

    def linear(name: str, wide: int, out: int, bias: bool = False) -> None:
        found[f"{name}.weight"] = randomise(torch.empty(out, wide, dtype=torch.float16))
        if bias:
            found[f"{name}.bias"] = torch.zeros(out, dtype=torch.float16)

    def norm(name: str, width: int) -> None:
        found[f"{name}.weight"] = torch.ones(width, dtype=torch.float16)
        found[f"{name}.bias"] = torch.zeros(width, dtype=torch.float16)

    def lora(name: str, wide: int, out: int) -> None:
        linear(f"{name}.down", wide, rank)
        linear(f"{name}.up", rank, out)
        found[f"{name}.up.weight"] *= 0.1

    state = vision.state_dict()
    found.update({f"vision.{key}": value.half() for key, value in state.items()})
    cls, patch = state["visual_projection.weight"].shape
    context = layers[1].attention.to_k.in_features
    encoders = {name: getattr(text, f"clip_{name}") for name in "lg" if hasattr(text, f"clip_{name}")}

    norm("heads.entity.layernorm", cls)
    linear("heads.entity.fc", cls, cls, bias=True)
    for number, (name, encoder) in enumerate(encoders.items(), 1):
        width = encoder.transformer.get_input_embeddings().weight.shape[1]
        linear(f"heads.entity.proj_{number}", cls, width, bias=True)
        norm(f"heads.fuse.{name}.layernorm", 2 * width)
        linear(f"heads.fuse.{name}.fc1", 2 * width, width, bias=True)
        linear(f"heads.fuse.{name}.fc2", width, width, bias=True)
        for layer in range(len(encoder.transformer.text_model.encoder.layers)):
            for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                lora(f"text.{name}.layers.{layer}.self_attn.{projection}", width, width)

    linear("heads.subject.proj.0", identity, 2 * identity, bias=True)
    linear("heads.subject.proj.2", 2 * identity, 4 * context, bias=True)
    norm("heads.subject.layer_norm", context)
    linear("heads.subject.refiner.proj_in", patch, context, bias=True)
    for number in range(depth):
        attention, feed_forward = (f"heads.subject.refiner.layers.{number}.{part}" for part in (0, 1))
        norm(f"{attention}.norm1", context)
        norm(f"{attention}.norm2", context)
        linear(f"{attention}.to_q", context, context)
        linear(f"{attention}.to_kv", context, 2 * context)
        linear(f"{attention}.to_out", context, context)
        norm(f"{feed_forward}.0", context)
        linear(f"{feed_forward}.1", context, 2 * context)
        linear(f"{feed_forward}.3", 2 * context, context)
    linear("heads.subject.refiner.proj_out", context, context, bias=True)
    norm("heads.subject.refiner.norm_out", context)

    for layer in layers:
        inner, keyed = layer.attention.to_q.in_features, layer.attention.to_k.in_features
        lora(f"unet.{layer.number}.to_q_lora", inner, inner)
        lora(f"unet.{layer.number}.to_k_lora", keyed, inner)
        lora(f"unet.{layer.number}.to_v_lora", keyed, inner)
        lora(f"unet.{layer.number}.to_out_lora", inner, inner)
        if layer.cross:
            lora(f"unet.{layer.number}.to_k_lora_image", keyed, inner)
            lora(f"unet.{layer.number}.to_v_lora_image", keyed, inner)
    return found
