"""Files of the IP-Adapter family with random weights, of every kind, as their authors lay them out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

KINDS = {
    "base": "ip-adapter_sd15",
    "plus": "ip-adapter-plus_sd15",
    "full": "ip-adapter-full-face_sd15",
    "faceid": "ip-adapter-faceid_sd15",
    "faceid-plus": "ip-adapter-faceid-plus_sd15",
    "faceid-plus-v2": "ip-adapter-faceid-plusv2_sd15",
    "portrait": "ip-adapter-faceid-portrait_sd15",
    "portrait-unnorm": "ip-adapter-faceid-portrait_sdxl_unnorm",
}
"""The kinds, with a published file's name of each."""
FACE = 512
Parts = dict[str, dict[str, Tensor]]


def random_parts(
    kind: str,
    context: int = 768,
    attention: Sequence[int] = (8, 8, 12, 12),
    hidden: int = 32,
    projection: int = 24,
    depth: int = 2,
    head_dim: int = 64,
    seed: int = 0,
) -> Parts:
    """`image_proj` and `ip_adapter` of a kind.

    context: width of the base's cross-attention context; attention: inner width of each attention layer, self- and
    cross-attention in turn; hidden, projection: widths of the vision encoder.
    """
    generator = torch.Generator().manual_seed(seed)
    head: dict[str, Tensor] = {}

    def linear(name: str, wide: int, out: int, bias: bool = True) -> None:
        head[f"{name}.weight"] = torch.randn(out, wide, generator=generator) * wide**-0.5
        if bias:
            head[f"{name}.bias"] = torch.randn(out, generator=generator) / 4

    def norm(name: str, width: int) -> None:
        head[f"{name}.weight"] = 1 + torch.randn(width, generator=generator) / 8
        head[f"{name}.bias"] = torch.randn(width, generator=generator) / 8

    def perceiver(prefix: str, patch: int, dim: int, inner: int) -> None:
        linear(f"{prefix}proj_in", patch, dim)
        for number in range(depth):
            layer = f"{prefix}layers.{number}"
            norm(f"{layer}.0.norm1", dim)
            norm(f"{layer}.0.norm2", dim)
            linear(f"{layer}.0.to_q", dim, inner, bias=False)
            linear(f"{layer}.0.to_kv", dim, 2 * inner, bias=False)
            linear(f"{layer}.0.to_out", inner, dim, bias=False)
            norm(f"{layer}.1.0", dim)
            linear(f"{layer}.1.1", dim, 4 * dim, bias=False)
            linear(f"{layer}.1.3", 4 * dim, dim, bias=False)
        linear(f"{prefix}proj_out", dim, context)
        norm(f"{prefix}norm_out", context)

    sdxl = context == 2048
    if kind == "base":
        linear("proj", projection, 4 * context)
        norm("norm", context)
    elif kind in ("plus", "portrait-unnorm"):
        dim = 1280 if sdxl else context
        head["latents"] = torch.randn(1, 16, dim, generator=generator) * dim**-0.5
        perceiver("", FACE if kind == "portrait-unnorm" else hidden, dim, head_dim * (20 if sdxl else 12))
    elif kind == "full":
        linear("proj.0", hidden, hidden)
        linear("proj.2", hidden, context)
        norm("proj.3", context)
    else:
        linear("proj.0", FACE, 2 * FACE)
        linear("proj.2", 2 * FACE, (16 if kind == "portrait" else 4) * context)
        norm("norm", context)
        if kind.startswith("faceid-plus"):
            perceiver("perceiver_resampler.", hidden, context, context)

    layers: dict[str, Tensor] = {}
    for number, inner in enumerate(attention):
        keyed = context if number % 2 else inner
        if kind.startswith("faceid"):
            for name, wide in (("q", inner), ("k", keyed), ("v", keyed), ("out", inner)):
                layers[f"{number}.to_{name}_lora.down.weight"] = torch.randn(3, wide, generator=generator) * wide**-0.5
                layers[f"{number}.to_{name}_lora.up.weight"] = torch.randn(inner, 3, generator=generator) / 4
        if number % 2:
            for name in ("k", "v"):
                layers[f"{number}.to_{name}_ip.weight"] = (
                    torch.randn(inner, context, generator=generator) * context**-0.5
                )
    return {"image_proj": head, "ip_adapter": layers}


def write(parts: Parts, folder: Path, name: str) -> Path:
    """`name` has an ending: a `.bin` is a pickle of the two parts, a `.safetensors` has their keys joined."""
    path = folder / name
    if path.suffix == ".bin":
        torch.save(parts, path)
    else:
        save_file({f"{part}.{key}": value for part, tensors in parts.items() for key, value in tensors.items()}, path)
    return path
