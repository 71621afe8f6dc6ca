"""A small SDXL with seeded random weights, a vision tower, three photos with faces, and a released checkpoint for them.

Shaped like the recorded stack; its weights are random in size and kind as those are, and exact in half precision.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import comfy.ldm.modules.attention
import torch
from full_size import released_tensors, tensors
from stack import TinySDXL, clip_vision, sdxl_clip, sdxl_unet_config, unet_patcher
from torch import Tensor, nn

_TEXT = {"vocab_size": 49408, "num_hidden_layers": 4, "max_position_embeddings": 77}
DESCRIBED = {
    "unet": {
        "block_out_channels": [32, 64, 64],
        "transformer_layers_per_block": [1, 2, 3],
        "attention_heads": [1, 2, 2],
        "cross_attention_dim": 256,
    },
    "text_l": {
        **_TEXT,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "hidden_act": "quick_gelu",
        "projection_dim": 64,
    },
    "text_g": {
        **_TEXT,
        "hidden_size": 192,
        "intermediate_size": 384,
        "num_attention_heads": 3,
        "hidden_act": "gelu",
        "projection_dim": 192,
    },
    "vision": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "image_size": 224,
        "patch_size": 32,
        "projection_dim": 96,
        "hidden_act": "quick_gelu",
    },
}
"""As the recordings describe their stack."""
IDENTITY = 512
"""The width of a face vector."""
_PHOTOS = ((300, 200), (224, 224), (120, 333))


def scatter(named: Iterable[tuple[str, Tensor]], deviation: float, seed: int) -> None:
    """Overwrite tensors with random values about 0, and about 1 where a norm scales by them."""
    random = torch.Generator().manual_seed(seed)
    for name, tensor in named:
        centre = 1.0 if tensor.ndim == 1 and name.endswith("weight") else 0.0
        tensor.copy_((centre + deviation * torch.randn(tensor.shape, generator=random)).half())


@cache
def sdxl() -> SimpleNamespace:
    """model, its weights, clip and clip_vision, and the folder of a release for them. Never changed by a test.

    weights: of the UNet, by its own names; the model's own are patched while it is sampled with.
    """
    model = unet_patcher(TinySDXL(sdxl_unet_config(DESCRIBED)))
    clip, tower = sdxl_clip(DESCRIBED), clip_vision(DESCRIBED["vision"])
    for seed, module in enumerate((model.model.diffusion_model, clip.cond_stage_model, tower.model)):
        scatter(((name, one.data) for name, one in module.named_parameters()), 0.08, seed)
    folder = tempfile.TemporaryDirectory()
    write_release(Path(folder.name), model, clip, tower)
    weights = {key: value.clone() for key, value in model.model.diffusion_model.state_dict().items()}
    return SimpleNamespace(
        model=model, weights=weights, clip=clip, clip_vision=tower, checkpoint=Path(folder.name), _folder=folder
    )


def write_release(folder: Path, model, clip, tower) -> None:
    """The three files of a random portrait checkpoint, as they are released."""
    layers = _in_diffusers_order(model.model.diffusion_model)
    made = tensors(layers, clip.cond_stage_model, tower.model, IDENTITY, rank=64, depth=4)
    scatter(made.items(), 0.05, seed=3)
    for name, content in released_tensors(made).items():
        torch.save(content, folder / name)


def _in_diffusers_order(unet: nn.Module) -> list[SimpleNamespace]:
    """Every attention as diffusers counts its processors: down, up, middle; self before cross."""
    found = []
    for part in (unet.input_blocks, unet.output_blocks, unet.middle_block):
        for block in part.modules():
            if isinstance(block, comfy.ldm.modules.attention.BasicTransformerBlock):
                found += [block.attn1, block.attn2]
    return [SimpleNamespace(number=n, cross=n % 2 == 1, attention=one) for n, one in enumerate(found)]


@cache
def photo(number: int) -> Tensor:
    """(1, H, W, 3) in [0, 1]: one of three blurred random pictures, of 300 x 200, 224 x 224 and 120 x 333."""
    return _picture(_PHOTOS[number % 3], seed=number % 3)


@cache
def face_crop(number: int) -> Tensor:
    """(1, 224, 224, 3) in [0, 1]."""
    return _picture((224, 224), seed=10 + number % 3)


def face_embeds() -> Tensor:
    """(3, IDENTITY) of length 1, of the three photos."""
    return nn.functional.normalize(torch.randn(3, IDENTITY, generator=torch.Generator().manual_seed(4)), dim=-1)


def _picture(size: tuple[int, int], seed: int) -> Tensor:
    coarse = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().movedim(1, -1) / 255
