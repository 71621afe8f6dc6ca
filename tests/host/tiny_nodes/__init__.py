"""A node pack for tests: loaders that give a real server tiny models, and a release for them, as it has no real ones.

Each takes the place of a core loader in a workflow, with the same inputs and outputs.
"""

import ctypes
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import folder_paths
import torch
from aiohttp import web
from server import PromptServer

sys.path.append(str(Path(__file__).resolve().parents[1]))

import tiny_sd15  # noqa: E402
import tiny_sdxl  # noqa: E402


class LinearVAE:
    """Colours from the four latent channels, eight pixels for each latent one."""

    def decode(self, samples: torch.Tensor) -> torch.Tensor:
        weights = torch.tensor([[0.3, 0.2, 0.2], [0.2, 0.3, 0.1], [-0.2, 0.1, 0.2], [-0.2, -0.3, -0.5]])
        image = (samples.float().movedim(1, -1) @ weights * 0.3 + 0.5).clamp(0, 1)
        return image.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)


class TinyCheckpoint:
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"ckpt_name": ("STRING", {})}}

    def load(self, ckpt_name: str):
        loaded = tiny_sd15.sd15() if ckpt_name.startswith("v1-5") else tiny_sdxl.sdxl()
        return loaded.model, loaded.clip, LinearVAE()


class TinyClipVision:
    RETURN_TYPES = ("CLIP_VISION",)
    FUNCTION = "load"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"clip_name": ("STRING", {})}}

    def load(self, clip_name: str):
        return (tiny_sdxl.sdxl().clip_vision,)


class TinyFace:
    """A face for each photo; the networks that would find them are not at hand."""

    RETURN_TYPES = ("MMDIFF_FACE",)
    FUNCTION = "analyze"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "choice": ("STRING", {}), "index": ("INT", {})}}

    def analyze(self, image: torch.Tensor, choice: str, index: int):
        numbers = [number % 3 for number in range(len(image))]
        crops = torch.cat([tiny_sdxl.face_crop(number) for number in numbers])
        return (SimpleNamespace(embeds=tiny_sdxl.face_embeds()[numbers], crops=crops),)


class TinyBackgroundRemoval:
    """Whatever is not as bright as paper is the subject."""

    RETURN_TYPES = ("BACKGROUND_REMOVAL",)
    FUNCTION = "load"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"bg_removal_name": ("STRING", {})}}

    def load(self, bg_removal_name: str):
        return (SimpleNamespace(encode_image=lambda image: (image.mean(dim=-1) < 0.9).float()),)


class Mallinfo(ctypes.Structure):
    """What glibc tells of its heap: `mallinfo2`, of which two fields are read."""

    _fields_ = [
        ("before_mapped", ctypes.c_size_t * 4),
        ("mapped", ctypes.c_size_t),
        ("before_used", ctypes.c_size_t * 2),
        ("used", ctypes.c_size_t),
        ("behind_used", ctypes.c_size_t * 2),
    ]


@PromptServer.instance.routes.get("/tests/held")
async def held(request: web.Request) -> web.Response:
    """Bytes that are allocated and not freed, those of tensors among them."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Mallinfo
    found = mallinfo2()
    return web.json_response(found.used + found.mapped)


NODE_CLASS_MAPPINGS = {
    node.__name__: node for node in (TinyCheckpoint, TinyClipVision, TinyFace, TinyBackgroundRemoval)
}

release = Path(folder_paths.models_dir) / "mmdiff" / "portrait_generation"
release.mkdir(exist_ok=True)
for file in tiny_sdxl.sdxl().checkpoint.iterdir():
    shutil.copy(file, release)
