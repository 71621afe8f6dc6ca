"""A tiny base as a single file, by the names that the authors of SD1.5 and SDXL gave their weights."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
VAE = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
}
OPEN_CLIP = {
    "text_model.encoder.layers.": "transformer.resblocks.",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn": "attn",
    "text_model.final_layer_norm": "ln_final",
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_projection.weight": "text_projection",
}


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def renamed(key: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        key = re.sub(rf"(^|(?<=\.)){re.escape(old)}(?=\.|$|(?<=\.))", new, key)
    return key


def unet_key(key: str) -> str:
    """One layer a block down, two up, as the tiny base has them."""
    if found := re.match(r"down_blocks\.(\d)\.(resnets|attentions)\.0\.(.*)", key):
        block, kind, rest = found.groups()
        key = f"input_blocks.{1 + 2 * int(block)}.{int(kind == 'attentions')}.{rest}"
    elif found := re.match(r"down_blocks\.(\d)\.downsamplers\.0\.conv\.(.*)", key):
        key = f"input_blocks.{2 * (int(found[1]) + 1)}.0.op.{found[2]}"
    elif found := re.match(r"up_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.*)", key):
        block, kind, layer, rest = found.groups()
        key = f"output_blocks.{2 * int(block) + int(layer)}.{int(kind == 'attentions')}.{rest}"
    elif found := re.match(r"up_blocks\.(\d)\.upsamplers\.0\.(.*)", key):
        key = f"output_blocks.{2 * int(found[1]) + 1}.2.{found[2]}"
    key = renamed(key, UNET)
    resnet = re.match(r"(middle_block\.[02]|(input|output)_blocks\.\d\.0)\.", key)
    return renamed(key, RESNET) if resnet else key


def vae_key(key: str) -> str:
    key = re.sub(r"encoder\.down_blocks\.(\d)\.resnets", r"encoder.down.\1.block", key)
    key = re.sub(r"down_blocks", "down", key)
    key = re.sub(r"up_blocks\.(\d)", lambda found: f"up.{1 - int(found[1])}", key)
    return renamed(re.sub(r"up\.(\d)\.resnets", r"up.\1.block", key), VAE)


def make_single(base: Path, file: Path) -> Path:
    """The weights of a tiny diffusers folder as one file."""
    sdxl = (base / "text_encoder_2").is_dir()
    made = {f"model.diffusion_model.{unet_key(key)}": value for key, value in weights(base / "unet").items()}
    for key, value in weights(base / "vae").items():
        attention = ".attentions." in key and key.endswith("weight") and value.ndim == 2
        made[f"first_stage_model.{vae_key(key)}"] = value[..., None, None] if attention else value
    prefix = "conditioner.embedders.0.transformer." if sdxl else "cond_stage_model.transformer."
    for key, value in weights(base / "text_encoder").items():
        made[f"{prefix}text_model.{key.removeprefix('text_model.')}"] = value
    if sdxl:
        made |= {f"conditioner.embedders.1.model.{key}": one for key, one in open_clip(base / "text_encoder_2").items()}
    save_file({key: value.contiguous() for key, value in made.items()}, file)
    return file


def open_clip(folder: Path) -> dict[str, Tensor]:
    found = weights(folder)
    made = {}
    for key, value in found.items():
        if part := re.match(r"(.*self_attn\.)q_proj\.(weight|bias)", key):
            three = [found[f"{part[1]}{name}_proj.{part[2]}"] for name in "qkv"]
            made[f"{open_clip_key(part[1])}in_proj_{part[2]}"] = torch.cat(three)
        elif not re.search(r"[kv]_proj", key):
            made[open_clip_key(key)] = value.T if key == "text_projection.weight" else value
    return made


def open_clip_key(key: str) -> str:
    for old, new in OPEN_CLIP.items():
        key = key.replace(old, new)
    return key
