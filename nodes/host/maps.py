"""What each subject's word and photo acted on, seen in one more call of the model on the finished latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider
from torch import Tensor, nn

from ...mmdiff_core import MMDiffError
from ...mmdiff_core.model.attention import subject_term, word_columns, word_maps
from .attention import KEY, Applied, Run, gates_by_word
from .base import Layer, attention_layers
from .regions import block_size, reach
from .rows import places
from .text import Binding, Conditioning


class Recorder:
    """Sits in one cross-attention slot, passes on what was there, and adds what it saw to the total of all slots."""

    def __init__(
        self, layer: Layer, occupant: Any, applied: Applied, guider: CFGGuider, sigma: float, total: Tensor
    ) -> None:
        self.layer = layer
        self.occupant = occupant
        self.applied = applied
        self.binding = applied.binding
        self.guider = guider
        self.sigma = sigma
        self.total = total

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        heads = self.layer.attention.heads
        if self.occupant is not None:
            out = self.occupant(q, k, v, extra_options)
        else:
            out = optimized_attention(q, k, v, heads, attn_precision=extra_options.get("attn_precision"))
        run: Run = self.guider.model_options["transformer_options"][KEY]
        number = run.applied.index(self.applied)
        active = run.active(number, self.sigma)
        block = block_size(extra_options, q.shape[1], self.total.shape[-2:])
        words = word_maps(q, k, word_columns(self.binding.words, k.shape[1]), heads)
        photos = self._photos(q, out, run, number, active, block)
        gates = torch.zeros_like(photos)
        if self.applied.by_word and active:
            gates[..., list(active)] = gates_by_word(self.binding, active, q, k, heads, self.total.shape[-2:]).to(gates)
            photos = photos * gates
        maps = torch.stack([words, photos], dim=-1).mean(dim=0)  # (N, S, 2)
        maps = maps / maps.mean(dim=0, keepdim=True).clamp_min(1e-12)
        maps = torch.cat([maps, gates.mean(dim=0)[..., None]], dim=-1)
        maps = maps.permute(1, 2, 0).unflatten(-1, tuple(block)).float()
        self.total += nn.functional.interpolate(maps, self.total.shape[-2:], mode="bilinear")
        return out

    def _photos(
        self,
        q: Tensor,
        text: Tensor,
        run: Run,
        number: int,
        active: tuple[int, ...],
        block: Sequence[int],
    ) -> Tensor:
        """(B, N, S) size of each subject's own term beside the text's, 0 where the subject is not active."""
        sizes = q.new_zeros(*q.shape[:2], len(self.binding.subjects))
        whole = places(run.latent_size, q.device)
        for subject in active:
            found = run.keys_values(self.layer, ((number, (subject,)),), q, self.guider.model_patcher)
            k, v = (part.expand(len(q), -1, -1) for part in found)
            limits = reach([self.binding.subjects[subject]], [k.shape[1]], block, whole, run.latent_size, q)
            term = subject_term(q, k, v, self.layer.attention.heads, limits)
            sizes[..., subject] = term.norm(dim=-1) / text.norm(dim=-1).clamp_min(1e-12)
        return sizes


def attention_maps(
    model: ModelPatcher, positive: Conditioning, binding: Binding, latent: dict[str, Any], percent: float
) -> Tensor:
    """(S, 3, H, W): for each subject, relative to the mean of the picture, where the prompt attended to its word and
    where its photo acted, and in [0, 1] how far separation by word let it act, at the latent's resolution, over all
    cross-attention layers. Without separation by word there are the first two.

    The finished latent is noised to `percent` of sampling and denoised once with the positive prompt alone. Raises
    MMDiffError where the binding is not on the model.
    """
    applied = next((one for one in model.get_attachment(KEY) or () if one.binding.id == binding.id), None)
    if applied is None:
        raise MMDiffError(
            "The model does not carry this binding. Connect the model that comes from Apply "
            "MM-Diff Attention with the same binding; a merge keeps the subjects of its first model alone."
        )
    if not latent["samples"].isfinite().all():
        raise MMDiffError(
            "The latent has values that are not numbers (NaN or infinite); the sampler that "
            "made it failed, look at its picture."
        )
    samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    model = model.clone()
    sampling = model.get_model_object("model_sampling")
    sigmas = torch.tensor([min(sampling.percent_to_sigma(percent), float(sampling.sigma_max)), 0.0])
    guider = CFGGuider(model)
    guider.inner_set_conds({"positive": positive})
    total = torch.zeros(len(binding.subjects), 3, *samples.shape[-2:], device=model.load_device)
    layers = [layer for layer in attention_layers(model.model.diffusion_model) if layer.cross]
    slots = model.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    for layer in layers:
        occupant = slots.get(layer.slot, slots.get(layer.slot[:2]))
        model.set_model_attn2_replace(Recorder(layer, occupant, applied, guider, float(sigmas[0]), total), *layer.slot)
    noise = comfy.sample.prepare_noise(samples, 0, latent.get("batch_index"))
    guider.sample(noise, samples, comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True)
    return (total / len(layers)).cpu()[:, : 3 if applied.by_word else 2]
