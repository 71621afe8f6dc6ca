"""A node pack for tests: loaders that give a real server the golden stack, where no pretrained weights are at hand.

Each takes the place of a core loader in a workflow, with the same inputs and outputs.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))

import stack  # noqa: E402
import tiny_sd15  # noqa: E402


class LinearVAE:
    """Colours from the four latent channels, eight pixels for each latent one."""

    def decode(self, samples: torch.Tensor) -> torch.Tensor:
        weights = torch.tensor([[0.3, 0.2, 0.2], [0.2, 0.3, 0.1], [-0.2, 0.1, 0.2], [-0.2, -0.3, -0.5]])
        image = (samples.float().movedim(1, -1) @ weights * 0.3 + 0.5).clamp(0, 1)
        return image.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)


class GoldenCheckpoint:
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"ckpt_name": ("STRING", {})}}

    def load(self, ckpt_name: str):
        loaded = tiny_sd15.sd15() if ckpt_name.startswith("v1-5") else stack.golden()
        return loaded.model, loaded.clip, LinearVAE()


class GoldenClipVision:
    RETURN_TYPES = ("CLIP_VISION",)
    FUNCTION = "load"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"clip_name": ("STRING", {})}}

    def load(self, clip_name: str):
        return (stack.golden().clip_vision,)


class GoldenFace:
    """The recorded faces, one for each photo; the networks that would find them are not at hand."""

    RETURN_TYPES = ("MMDIFF_FACE",)
    FUNCTION = "analyze"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "choice": ("STRING", {}), "index": ("INT", {})}}

    def analyze(self, image: torch.Tensor, choice: str, index: int):
        _, tensors = stack.recording("reference")
        crops = torch.stack([tensors[f"mixing.face_crop{number % 3}"] for number in range(len(image))])
        embeds = torch.stack([tensors["mixing.face_embeds"][number % 3] for number in range(len(image))])
        return (SimpleNamespace(embeds=embeds, crops=crops.float().movedim(1, -1) / 255),)


NODE_CLASS_MAPPINGS = {node.__name__: node for node in (GoldenCheckpoint, GoldenClipVision, GoldenFace)}
