"""The frozen model to train around: a diffusers folder of SDXL's or SD1.5's shape, and a CLIP vision tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDPMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

from ..errors import MMDiffError
from ..files import refuse_impostors

_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


class Base(nn.Module):
    """unet, vae, vision; text: encoders by "l" and "g"; tokenizers: theirs; scheduler: the noise to train with."""

    def __init__(self, folder: str, vision: str, weights: bool, dtype: torch.dtype, config: str = "") -> None:
        """Load the folders; or, without `weights`, build the same shapes from their configurations on the device that
        torch's context says. config: where `folder` is a single file, a diffusers folder with the configurations and
        tokenizers of its family.

        Raises MMDiffError where a folder is something else, or a file in it is missing or cut off.
        """
        super().__init__()
        single = _is_single(folder, config)
        parts = _parts(Path(config if single else folder))
        sdxl = "text_encoder_2" in parts
        whole = _of_single(Path(folder), Path(config), sdxl, dtype) if single and weights else {}

        def model(kind: Any, path: Path) -> nn.Module:
            found = whole.get(path.name) or (_loaded if weights else _shaped)(kind, path, dtype)
            return found.eval().requires_grad_(False)

        self.unet = model(UNet2DConditionModel, parts["unet"])
        self.vae = model(_vae_kind(parts["vae"]), parts["vae"])
        self.text = nn.ModuleDict({"l": model(CLIPTextModel, parts["text_encoder"])})
        if sdxl:
            self.text["g"] = model(CLIPTextModelWithProjection, parts["text_encoder_2"])
        self.vision = model(CLIPVisionModelWithProjection, Path(vision))
        folders = {"l": parts["tokenizer"], **({"g": parts["tokenizer_2"]} if sdxl else {})}
        self.tokenizers = {
            encoder: _opened(CLIPTokenizer, path, model_max_length=self.text[encoder].config.max_position_embeddings)
            for encoder, path in folders.items()
        }
        with torch.device("cpu"):
            self.scheduler = _opened(DDPMScheduler, parts["scheduler"])
        prediction = self.scheduler.config.prediction_type
        if prediction not in ("epsilon", "v_prediction"):
            raise MMDiffError(
                f"base: {folder} predicts '{prediction}'; MM-Diff trains models that predict epsilon or v_prediction."
            )

    @property
    def attention_layers(self) -> list[str]:
        """Module paths of all attention layers, in the order in which a checkpoint counts them."""
        return [name.removesuffix(".processor") for name in self.unet.attn_processors]

    @property
    def cross_layers(self) -> list[str]:
        """Module paths of the cross-attention layers."""
        return [name for name in self.attention_layers if name.endswith("attn2")]

    @property
    def photo_size(self) -> int:
        """Side of the photos that the vision tower looks at, pixels."""
        return self.vision.config.image_size

    @property
    def latent_pixel(self) -> int:
        """Side of a latent's pixel in the picture's pixels."""
        config = self.vae.config
        blocks = getattr(config, "block_out_channels", None) or config.encoder_block_out_channels
        return 2 ** (len(blocks) - 1)

    @property
    def step(self) -> int:
        """What the sides of a picture must be multiples of, so that VAE and UNet can halve it as often as they do."""
        return self.latent_pixel * 2 ** (len(self.unet.config.block_out_channels) - 1)

    def check_resolution(self, resolution: int) -> None:
        """Raises MMDiffError where a picture of this side can't be halved as often as VAE and UNet do it."""
        step = self.step
        if resolution % step:
            raise MMDiffError(
                f"data.resolution is {resolution}; for this base it must be a multiple of {step}, for example "
                f"{max(step, resolution // step * step)}."
            )

    def end_in_noise(self) -> None:
        """Change the noise schedule so that nothing of a picture is left at its last timestep (arXiv 2305.08891).

        Raises MMDiffError where the base predicts epsilon, which says nothing there.
        """
        if self.scheduler.config.prediction_type == "epsilon":
            raise MMDiffError(
                "train.zero_terminal_snr is true, and the base predicts epsilon, from which no picture follows where "
                "there is only noise. Take a base that predicts v, or set the key to false."
            )
        self.scheduler = DDPMScheduler.from_config(
            self.scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing"
        )

    @torch.no_grad()
    def encode(self, image: Tensor, noise: Tensor) -> Tensor:
        """(B, 3, H, W) pictures in [-1, 1] to latents, drawn with (B, C, h, w) noise; a tiny VAE has one latent for a
        picture, and needs no noise."""
        return self.latents(*self.moments(image), noise)

    @torch.no_grad()
    def moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation, (B, C, h, w) each, of the latents that `encode` draws, before scaling."""
        found = self.vae.encode(image.to(self.vae.dtype))
        if isinstance(self.vae, AutoencoderTiny):
            return found.latents, torch.zeros_like(found.latents)
        return found.latent_dist.mean, found.latent_dist.std

    def latents(self, mean: Tensor, deviation: Tensor, noise: Tensor) -> Tensor:
        """Latents of these moments, drawn with noise of their shape."""
        return (mean.float() + deviation.float() * noise) * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) latents to (B, 3, H, W) pictures in [-1, 1]."""
        return self.vae.decode((latents / self.vae.config.scaling_factor).to(self.vae.dtype)).sample.float()

    def latent_shape(self, height: int, width: int | None = None) -> tuple[int, int, int]:
        """(C, h, w) of the latent of a picture, which is a square without a width."""
        sides = height // self.latent_pixel, (width or height) // self.latent_pixel
        return self.vae.config.latent_channels, *sides


def _parts(folder: Path) -> dict[str, Path]:
    if (folder / "transformer").exists():
        raise MMDiffError(f"base: {folder} is a model with a transformer; MM-Diff trains SDXL- and SD1.5-shaped UNets.")
    found = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
    wanted = (*_PARTS, "text_encoder_2", "tokenizer_2") if "text_encoder_2" in found else _PARTS
    missing = [name for name in wanted if name not in found]
    if missing:
        raise MMDiffError(
            f"base: {folder} is no diffusers model, it lacks {', '.join(missing)}. Wanted is the folder that "
            "`save_pretrained` writes, or a single .safetensors file."
        )
    return found


def _is_single(base: str, config: str) -> bool:
    """Whether a base is a file. Raises MMDiffError where that does not go with its `base_config`."""
    single = Path(base).is_file()
    if single and not config:
        raise MMDiffError(
            f"base: {base} is a single file, which holds weights alone. Set base_config to a diffusers folder of its "
            "family (model_index.json, scheduler, tokenizers, and config.json of every part), such as that of "
            "stable-diffusion-xl-base-1.0; the weights in it are not needed."
        )
    if config and not single:
        raise MMDiffError(f"base_config is {config}, and base, {base}, is no single file. Leave base_config out.")
    return single


def _of_single(file: Path, config: Path, sdxl: bool, dtype: torch.dtype) -> dict[str, nn.Module]:
    """The models in a single file, by the names of a folder's parts. Raises MMDiffError where one is missing."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline  # slow, and for single files only

    refuse_impostors(file)
    kind = StableDiffusionXLPipeline if sdxl else StableDiffusionPipeline
    parts = ("unet", "vae", "text_encoder", *(("text_encoder_2",) if sdxl else ()))
    options: dict[str, Any] = {"feature_extractor": None, "image_encoder": None}
    if not sdxl:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    level = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()  # it warns of modules to be kept in float32, of which these have none
    try:
        made = kind.from_single_file(str(file), config=str(config), local_files_only=True, torch_dtype=dtype, **options)
    except Exception as error:  # any weights may be under this name, and they make the converter fail in any way
        reason = str(error).strip().split("\n")[0]
        raise MMDiffError(
            f"base: {file} can't be read as a whole model of the family in base_config, {config} ({reason}). Wanted is "
            "a checkpoint with UNet, VAE and text encoders."
        ) from error
    finally:
        diffusers_logging.set_verbosity(level)
    found = {part: getattr(made, part) for part in parts}
    for part, model in found.items():
        lacking = next((name for name, value in model.state_dict().items() if value.is_meta), None)
        if lacking is not None:
            raise MMDiffError(f"base: {file} lacks weights of the {part}, among them {lacking}; download it again.")
    return found


def _vae_kind(folder: Path) -> Any:
    tiny = _opened(AutoencoderTiny, folder, method="load_config").get("_class_name") == "AutoencoderTiny"
    return AutoencoderTiny if tiny else AutoencoderKL


def _loaded(kind: Any, path: Path, dtype: torch.dtype) -> nn.Module:
    name = "torch_dtype" if kind.__module__.startswith("diffusers") else "dtype"
    model, info = _opened(kind, path, **{name: dtype}, output_loading_info=True)
    if info["missing_keys"]:
        raise MMDiffError(f"{path} lacks weights, among them {sorted(info['missing_keys'])[0]}; download it again.")
    return model


def _shaped(kind: Any, path: Path, dtype: torch.dtype) -> nn.Module:
    if kind.__module__.startswith("diffusers"):
        _opened(kind, path, method="load_config")
        model = kind.from_config(kind.load_config(path))
    else:
        model = kind(_opened(kind.config_class, path))
    return nn.Module.to(model, dtype)  # diffusers' own `to` warns of what can't matter here


def _opened(kind: Any, path: Path, method: str = "from_pretrained", **options: Any) -> Any:
    try:
        return getattr(kind, method)(path, **options, **({"local_files_only": True} if path.is_dir() else {}))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise MMDiffError(f"{path} can't be read as a {kind.__name__}: {reason}") from error
