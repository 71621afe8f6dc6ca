"""The demo model that ships with the pack, as the host's own objects."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, NamedTuple

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.utils
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.model_patcher import CoreModelPatcher, ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy.samplers import CFGGuider
from torch import Tensor

from ...mmdiff_core.demo import CHECKPOINT, FOLDER
from ...mmdiff_core.files import read_safetensors
from .model import HostedMMDiff, load_mmdiff
from .tell import warn


class Demo(NamedTuple):
    """Everything a graph needs, in the order of the node's outputs."""

    model: ModelPatcher
    clip: comfy.sd.CLIP
    vae: comfy.sd.VAE
    clip_vision: ClipVisionModel
    mmdiff: HostedMMDiff
    latent: dict[str, Tensor]


CFG, MOST_CFG = 2.5, 5.0
"""What it was measured at, and beyond which its pictures are noise."""
SIDE = 16
"""Of the latents the demo was trained on; a pixel of them is 8 of the picture."""


class Latents(comfy.latent_formats.LatentFormat):
    """What the demo's latents are; nothing is scaled."""

    latent_channels = 16


class DemoModel(comfy.supported_models.SD15):
    """Stable Diffusion 1.5's layout, small, with a velocity for its output and more noise at the end."""

    unet_extra_config: dict = {}
    latent_format = Latents

    def model_type(self, state_dict: dict, prefix: str = "") -> comfy.model_base.ModelType:
        return comfy.model_base.ModelType.V_PREDICTION

    def inpaint_model(self) -> bool:
        return False


class Multiple(float):
    """A level's width over the first one's. The host multiplies by it and wants whole channels: 1.5 times 64 is 96."""

    def __mul__(self, channels: int) -> int:
        return round(float(self) * channels)

    __rmul__ = __mul__


class DemoTokenizer(comfy.sd1_clip.SDTokenizer):
    """CLIP's tokenizer with the demo's words."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: dict | None = None) -> None:
        config = _config("text_encoder")
        super().__init__(
            tokenizer_path=str(FOLDER / "tokenizer"),
            max_length=config["max_position_embeddings"],
            embedding_directory=embedding_directory,
            embedding_size=config["hidden_size"],
            tokenizer_data=tokenizer_data or {},
        )


class DemoTokenizers(comfy.sd1_clip.SD1Tokenizer):
    def __init__(self, embedding_directory: Any = None, tokenizer_data: dict | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data or {}, tokenizer=DemoTokenizer)


class DemoTextEncoder(comfy.sd1_clip.SDClipModel):
    def __init__(self, device: str = "cpu", dtype: Any = None, model_options: dict | None = None) -> None:
        config = _config("text_encoder")
        start, end = config["bos_token_id"], config["eos_token_id"]
        super().__init__(
            device=device,
            dtype=dtype,
            max_length=config["max_position_embeddings"],
            textmodel_json_config=config,
            special_tokens={"start": start, "end": end, "pad": end},
            return_projected_pooled=False,
            model_options=model_options or {},
        )


class DemoClip(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device: str = "cpu", dtype: Any = None, model_options: dict | None = None) -> None:
        super().__init__(device, dtype, model_options or {}, clip_model=DemoTextEncoder)


def load_demo() -> Demo:
    """Load all parts. Full precision everywhere, because they are small."""
    latent = {"samples": torch.zeros(1, Latents.latent_channels, SIDE, SIDE)}
    return Demo(_model(), _clip(), _vae(), _vision(), load_mmdiff(CHECKPOINT), latent)


def _model() -> ModelPatcher:
    config, noise = _config("unet"), _config("scheduler", "scheduler_config.json")
    channels, depth = config["block_out_channels"], config["layers_per_block"]
    levels = len(channels)
    model_config = DemoModel(
        {
            "image_size": 32,
            "in_channels": config["in_channels"],
            "out_channels": config["out_channels"],
            "model_channels": channels[0],
            "num_res_blocks": [depth] * levels,
            "channel_mult": [Multiple(wide / channels[0]) for wide in channels],
            "transformer_depth": [1] * levels * depth,
            "transformer_depth_middle": 1,
            "transformer_depth_output": [1] * levels * (depth + 1),
            "context_dim": config["cross_attention_dim"],
            "num_heads": -1,
            "num_head_channels": channels[0] // config["attention_head_dim"][0],
            "adm_in_channels": None,
            "use_spatial_transformer": True,
            "use_linear_in_transformer": False,
            "use_temporal_attention": False,
            "legacy": False,
        }
    )
    model_config.sampling_settings = {"linear_start": noise["beta_start"], "linear_end": noise["beta_end"]}
    model_config.set_inference_dtype(torch.float32, None)
    offload = comfy.model_management.unet_offload_device()
    model = model_config.get_model({}, "", device=offload).eval()
    names = comfy.utils.unet_to_diffusers(model_config.unet_config)
    weights = {names[key]: value for key, value in _weights("unet/diffusion_pytorch_model").items()}
    model.diffusion_model.load_state_dict(weights)
    patcher = CoreModelPatcher(model, load_device=comfy.model_management.get_torch_device(), offload_device=offload)
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "mmdiff_demo", _say_what_spoils)
    return patcher


def _say_what_spoils(
    executor: Any, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, *rest: Any, **more: Any
) -> Any:
    """Warn of a run that this model makes no picture of: at a high CFG, and at another size, where it is drawn from
    noise alone; a finished one may be enlarged and refined."""
    guider = executor.class_obj
    height, width = noise.shape[-2:]
    most = guider.model_patcher.get_model_object("model_sampling").sigma_max
    if isinstance(guider, CFGGuider) and guider.cfg > MOST_CFG:
        warn(
            f"The demo model draws at a CFG of about {CFG}; at {guider.cfg:g} the picture drowns in noise and loud "
            "colours. Change cfg on the sampler."
        )
    if (height, width) != (SIDE, SIDE) and sigmas[0] >= 0.99 * most:
        warn(
            f"The demo model draws {8 * SIDE} x {8 * SIDE} pixels; at {8 * width} x {8 * height} it repeats or "
            "loses its subjects. Connect the latent of Load MM-Diff Demo to the sampler."
        )
    return executor(noise, latent, sampler, sigmas, *rest, **more)


def _clip() -> comfy.sd.CLIP:
    target = SimpleNamespace(params={}, clip=DemoClip, tokenizer=DemoTokenizers)
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32})
    encoder = clip.cond_stage_model.clip_l
    weights = {
        f"text_model.{key.removeprefix('text_model.')}": value for key, value in _weights("text_encoder/model").items()
    }
    table = "text_model.embeddings.token_embedding.weight"
    spare = encoder.transformer.get_input_embeddings().num_embeddings - len(weights[table])
    weights[table] = torch.nn.functional.pad(weights[table], (0, 0, 0, spare))  # the host's has CLIP's own length
    encoder.load_sd(weights)
    return clip


def _vae() -> comfy.sd.VAE:
    """As TAESD, whose decoder the host counts from its clamp on, one place further than diffusers."""
    weights = {
        "vae_scale": torch.tensor(1 / _config("vae")["scaling_factor"]),
        "vae_shift": torch.tensor(0.0),
    }
    for key, value in _weights("vae/diffusion_pytorch_model").items():
        part, _, number, name = key.split(".", 3)
        weights[f"taesd_{part}.{int(number) + (part == 'decoder')}.{name}"] = value
    return comfy.sd.VAE(sd=weights, dtype=torch.float32)


def _vision() -> ClipVisionModel:
    vision = ClipVisionModel(str(FOLDER / "vision" / "config.json"))
    vision.load_sd(_weights("vision/model"))
    return vision


def _config(part: str, name: str = "config.json") -> dict[str, Any]:
    return json.loads((FOLDER / part / name).read_text())


def _weights(name: str) -> dict[str, Tensor]:
    return {key: value.float() for key, value in read_safetensors(FOLDER / f"{name}.safetensors")[0].items()}
