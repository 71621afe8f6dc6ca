"""What a guider predicts at one noise level, conditioning by conditioning, before guidance mixes them."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

Predictions = list[Tensor]


def watched(model: Any) -> tuple[Any, list[tuple[float, Predictions]]]:
    """A clone of a model, and a list that every call of a sampler adds its noise level and its predictions to."""
    calls: list[tuple[float, Predictions]] = []

    def watch(executor: Any, model: Any, conds: list, x: Tensor, sigma: Tensor, options: dict) -> Predictions:
        predicted = executor(model, conds, x, sigma, options)
        calls.append((float(sigma[0]), [one.clone() for one in predicted]))
        return predicted

    model = model.clone()
    model.add_wrapper(WrappersMP.CALC_COND_BATCH, watch)
    return model, calls


def noises(batch: int = 1, size: tuple[int, int] = (16, 16)) -> Tensor:
    """(batch, 4, H, W) fixed noise; the first of a larger batch are those of a smaller one."""
    return torch.stack([torch.randn(4, *size, generator=torch.Generator().manual_seed(n)) for n in range(batch)])


def predict(
    model: Any,
    *conditionings: list,
    guider: type = comfy.samplers.CFGGuider,
    cfg: tuple[float, ...] = (5.0,),
    percent: float = 0.5,
    noise: Tensor | None = None,
) -> Predictions:
    """The (B, 4, H, W) predictions of each list of conditionings, in the order in which the guider asks for them.

    conditionings, cfg: the arguments of the guider's set_conds and set_cfg. percent: which part of sampling.
    """
    noise = noises() if noise is None else noise
    model, calls = watched(model)
    guide = guider(model)
    guide.set_conds(*conditionings)
    guide.set_cfg(*cfg)
    sigma = model.get_model_object("model_sampling").percent_to_sigma(percent)
    sampler = comfy.samplers.KSAMPLER(comfy.samplers.k_diffusion_sampling.sample_euler)
    guide.sample(noise, torch.zeros_like(noise), sampler, torch.tensor([sigma, 0.0]), disable_pbar=True, seed=0)
    ((_, predicted),) = calls
    return predicted
