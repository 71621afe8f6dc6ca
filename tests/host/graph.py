"""The tiny stack's graph through the real nodes: encode, bind, apply, sample a few Euler steps."""

from __future__ import annotations

import sys
import uuid
from typing import Any

import comfy.samplers
import tiny_sdxl
import torch
from comfy_execution.utils import CurrentNodeContext
from tiny_sdxl import face_crop, face_embeds, sdxl
from torch import Tensor

Pack = dict[str, type]
_loaded: dict[str, Any] = {}


def module(pack: Pack, name: str) -> Any:
    """A module of the pack as the host imported it, e.g. `mmdiff_core` or `nodes.host.attention`."""
    return sys.modules[f"{pack['MMDiffLoad'].__module__.rsplit('.', 2)[0]}.{name}"]


def mmdiff(pack: Pack, path: Any = None) -> Any:
    """What an MMDIFF_MODEL socket carries; the tiny release unless a path is given. Loaded once."""
    path = str(path or sdxl().checkpoint)
    if path not in _loaded:
        _loaded[path] = module(pack, "nodes.host.model").load_mmdiff(path)
    return _loaded[path]


def subject(pack: Pack, name: str, photo: int = 0, weight: float = 1.0, checkpoint: Any = None) -> Any:
    """A subject encoded from one of the three photos. checkpoint: an MMDIFF_MODEL; the tiny release if None."""
    face = module(pack, "mmdiff_core").Face(face_embeds()[photo : photo + 1], face_crop(photo))
    encoded = pack["MMDiffEncodeSubject"].execute(
        mmdiff=checkpoint or mmdiff(pack),
        clip_vision=sdxl().clip_vision,
        image=tiny_sdxl.photo(photo),
        face=face,
        name=name,
        weight=weight,
    )
    return encoded.args[0]


def bound(pack: Pack, prompt: str, subjects: list[Any], negative: str = "lowres", **inputs: Any) -> tuple:
    """(positive, negative, binding) of Multi-Subject Binding; `inputs` override the node's other inputs."""
    defaults = {"width": 0, "height": 0, "start_percent": 0.0, "end_percent": 1.0}
    # Asked for only where they are needed: the benchmarks bring their own and have no recordings.
    inputs = {"mmdiff": inputs.get("mmdiff") or mmdiff(pack), "clip": inputs.get("clip") or sdxl().clip, **inputs}
    node = pack["MMDiffBindSubjects"]
    sockets = {f"subject_{number}": one for number, one in enumerate(subjects)}
    return node.execute(prompt=prompt, negative_prompt=negative, subjects=sockets, **{**defaults, **inputs}).args


def applied(pack: Pack, binding: Any, model: Any = None, weight: float = 0.8, separation: str = "reference") -> Any:
    """A model (the tiny one if None) with Apply MM-Diff Attention on it."""
    node = pack["MMDiffApplyAttention"]
    return node.execute(model=model or sdxl().model, binding=binding, weight=weight, separation=separation).args[0]


def sample(
    model: Any, positive: list, negative: list, cfg: float = 5.0, steps: int = 2, batch: int = 1, size=(16, 16)
) -> Tensor:
    """(batch, 4, H, W) latents after a few Euler steps from fixed noise. size: (H, W) of the latent."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return run(guider, steps, batch, size)


def run(guider: Any, steps: int = 2, batch: int = 1, size=(16, 16)) -> Tensor:
    """As `sample`, with a guider of any kind that holds its model and conditionings already."""
    noise = torch.randn(batch, 4, *size, generator=torch.Generator().manual_seed(0))
    sigmas = comfy.samplers.calculate_sigmas(guider.model_patcher.get_model_object("model_sampling"), "normal", steps)
    sampler = comfy.samplers.KSAMPLER(comfy.samplers.k_diffusion_sampling.sample_euler)
    return guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=0)


def running() -> CurrentNodeContext:
    """As while the host runs a node of a graph, each time another one."""
    return CurrentNodeContext(str(uuid.uuid4()), "1")


def error(found: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to the largest wanted value."""
    return float((found.float() - wanted.float()).abs().max() / wanted.float().abs().max())
