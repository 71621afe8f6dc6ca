"""Multi-modal cross-attention in the host, bound at run time.

Nothing is planted in the model at graph time but two keyed wrappers. One opens a run: it marks the rows and makes the
run's cache. The other wraps, for one call of the model, whatever sits in each cross-attention slot, so that the order
of nodes does not matter and no other node ever finds anything of ours to change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy.weight_adapter.lora import LoRAAdapter
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import Tensor

from ...mmdiff_core.model.attention import gated_subject_term, subject_term, word_gates, word_maps
from .base import Layer, attention_layers, check_base
from .keys_values import keys_values
from .lora import patch_unet
from .regions import reach
from .rows import MARK, Chunk, chunks_of_rows, mark_rows
from .text import Binding

KEY = "mmdiff"


@dataclass(frozen=True)
class Applied:
    """One binding on a model: how strongly, how subjects are kept apart, and the UNet LoRA as it was patched in."""

    binding: Binding
    weight: float
    by_word: bool
    patched: dict[str, LoRAAdapter]


def apply_binding(model: ModelPatcher, binding: Binding, weight: float, by_word: bool) -> ModelPatcher:
    """A copy of the model that draws the binding's subjects too. Raises MMDiffError for a wrong base model.

    A checkpoint's LoRA is patched once, however many bindings of it the model already carries.
    """
    mmdiff = binding.mmdiff.core
    layers = check_base(model, mmdiff)
    model = model.clone()
    before: tuple[Applied, ...] = model.get_attachment(KEY) or ()
    patched = next((one.patched for one in before if one.binding.mmdiff.core.source == mmdiff.source), None)
    if patched is None:
        patched = patch_unet(model, mmdiff, layers)
    applied = (*before, Applied(binding, weight, by_word, patched))
    model.set_attachments(KEY, applied)
    for kind, wrapper in ((WrappersMP.OUTER_SAMPLE, _open_run(applied)), (WrappersMP.APPLY_MODEL, _bind_call)):
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, wrapper)
    return model


class Run:
    """What lives as long as one sampling run: the windows as sigmas, and the subjects' keys and values.

    latent_size: (H, W) of the whole latent.
    """

    def __init__(self, applied: tuple[Applied, ...], model_sampling: Any, latent_size: tuple[int, int]) -> None:
        self.applied = applied
        self.latent_size = latent_size
        self.windows = [
            [
                (model_sampling.percent_to_sigma(s.start_percent), model_sampling.percent_to_sigma(s.end_percent))
                for s in one.binding.subjects
            ]
            for one in applied
        ]
        self.layers: dict[int, list[Layer]] = {}
        self.cache: dict[Any, tuple[Tensor, Tensor]] = {}
        self.warned = False

    def active(self, number: int, sigma: float) -> tuple[int, ...]:
        """The subjects of an applied binding that act at a noise level."""
        return tuple(i for i, (start, end) in enumerate(self.windows[number]) if end <= sigma <= start)

    def cross_layers(self, diffusion_model: torch.nn.Module) -> list[Layer]:
        """The cross-attention layers of a model; a multi-GPU run has several models."""
        if id(diffusion_model) not in self.layers:
            self.layers[id(diffusion_model)] = [layer for layer in attention_layers(diffusion_model) if layer.cross]
        return self.layers[id(diffusion_model)]

    def warn_once(self, message: str) -> None:
        if not self.warned:
            logging.warning("MM-Diff: %s", message)
            self.warned = True

    def keys_values(
        self, layer: Layer, active: tuple[tuple[int, tuple[int, ...]], ...], like: Tensor, patcher: ModelPatcher
    ) -> tuple[Tensor, Tensor]:
        """(1, T, C) keys and weighted values of applied bindings' active subjects, computed once in a run.

        active: pairs of an applied binding's number and its active subjects.
        """
        key = (layer.path, active, like.device, like.dtype, patcher.current_hooks)
        if key not in self.cache:
            parts = []
            for number, indices in active:
                one = self.applied[number]
                subjects = [one.binding.subjects[index] for index in indices]
                tokens = torch.cat([subject.tokens for subject in subjects]).to(like)
                k, v = keys_values(layer, tokens, one.binding.mmdiff.core, one.patched, patcher)
                weights = torch.cat([like.new_full((len(s.tokens),), one.weight * s.weight) for s in subjects])
                parts.append((k, v * weights[:, None]))
            k, v = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
            self.cache[key] = (k, v)
        return self.cache[key]


def _open_run(applied: tuple[Applied, ...]) -> Callable:
    def open_run(executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Any:
        guider = executor.class_obj
        mark_rows(guider.conds, [one.binding for one in applied])
        model_sampling = guider.model_patcher.get_model_object("model_sampling")
        guider.model_options["transformer_options"][KEY] = Run(applied, model_sampling, tuple(noise.shape[-2:]))
        with _uncompiled(guider.model_patcher):
            return executor(noise, *args, **kwargs)

    return open_run


def _uncompiled(model: ModelPatcher) -> AbstractContextManager:
    """Runs a compiled model as it was before, with a warning; changes nothing for others.

    The host's compiler node drops the guards on transformer_options, where the number of the running block stands. So
    blocks of one shape share a graph, and all of them look up the attention patch of the block it was made for.
    """
    if not model.get_wrappers(WrappersMP.APPLY_MODEL, COMPILE_KEY):
        return nullcontext()
    logging.warning("MM-Diff: a compiled model mixes up its blocks' subjects, so this run is not compiled.")
    return torch.compiler.set_stance("force_eager")


def _bind_call(
    executor: Any,
    x: Tensor,
    t: Tensor,
    c_concat: Any = None,
    c_crossattn: Any = None,
    control: Any = None,
    transformer_options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Wrap the cross-attention slots for one call of the model, where some row has an active subject."""
    options = transformer_options or {}
    run: Run | None = options.get(KEY)
    chunks: list[Chunk] | None = kwargs.pop(MARK, None)
    if run is not None and chunks is None:
        run.warn_once("another node dropped the marks of this batch's rows, so they get no subjects.")
    if run is not None and chunks is not None:
        call = Call(run, chunks, tuple(options["cond_or_uncond"]), executor.class_obj.current_patcher, float(t[0]))
        if call.active:
            slots = options.get("patches_replace", {})
            cross = slots.get("attn2", {})
            bound = {
                layer.slot: BoundSlot(call, layer, cross.get(layer.slot, cross.get(layer.slot[:2])))
                for layer in run.cross_layers(executor.class_obj.diffusion_model)
            }
            options = {**options, "patches_replace": {**slots, "attn2": {**cross, **bound}}}
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


class Call:
    """One call of the model: who is active in which rows.

    order: the host's list that says where each chunk comes from, copied: an attention couple changes it in place.
    active: for each applied binding with any, the subjects that act at this noise level.
    """

    def __init__(
        self, run: Run, chunks: list[Chunk], order: tuple[int, ...], patcher: ModelPatcher, sigma: float
    ) -> None:
        self.run = run
        self.chunks = chunks
        self.order = order
        self.patcher = patcher
        numbers = {number for chunk in chunks for number in chunk.bindings}
        self.active = {number: active for number in numbers if (active := run.active(number, sigma))}


class BoundSlot:
    """A cross-attention slot for one call: what was there, or the host's own attention, plus the subjects' term."""

    def __init__(self, call: Call, layer: Layer, occupant: Callable | None) -> None:
        self.call = call
        self.layer = layer
        self.occupant = occupant

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        heads = extra_options["n_heads"]
        if self.occupant is not None:
            out = self.occupant(q, k, v, extra_options).clone()
        else:
            out = optimized_attention(
                q, k, v, heads, attn_precision=extra_options["attn_precision"], transformer_options=extra_options
            )
        call = self.call
        grown = extra_options.get("cond_or_uncond_couple", extra_options["cond_or_uncond"])
        chunks = chunks_of_rows(call.chunks, call.order, grown)
        if chunks is None or q.shape[0] % len(chunks):
            call.run.warn_once("another node rearranged the rows of this batch, so they get no subjects.")
            return out
        batch = q.shape[0] // len(chunks)
        for place, chunk in enumerate(chunks):
            rows = slice(place * batch, (place + 1) * batch)
            numbers = [number for number in chunk.bindings if number in call.active]
            if numbers:
                own = chunk._replace(words=chunk.words and len(chunks) == len(call.chunks))
                block = extra_options["activations_shape"][-2:]
                out[rows].add_(self._term(q[rows], k[rows], heads, numbers, own, block))
        return out

    def _term(
        self, q: Tensor, k_text: Tensor, heads: int, numbers: list[int], chunk: Chunk, block: Sequence[int]
    ) -> Tensor:
        """The subjects' term of one chunk's rows, (batch, N, C), in a block of size (h, w)."""
        run = self.call.run
        active = tuple((n, self.call.active[n]) for n in numbers)
        k, v = (part.expand(len(q), -1, -1) for part in run.keys_values(self.layer, active, q, self.call.patcher))
        subjects = [run.applied[n].binding.subjects[i] for n in numbers for i in self.call.active[n]]
        words = [run.applied[n].binding.words[i] for n in numbers for i in self.call.active[n]]
        sizes = [len(subject.tokens) for subject in subjects]
        limits = reach(subjects, sizes, block, chunk.area, run.latent_size, q)
        if not (chunk.words and any(run.applied[n].by_word for n in numbers)):
            return subject_term(q, k, v, heads, limits)
        gates = word_gates(word_maps(q, k_text, words, heads))
        return gated_subject_term(q, k, v, heads, sizes, gates, limits)
