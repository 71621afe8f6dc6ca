"""Multi-modal cross-attention in the host, bound at run time.

Nothing is planted in the model at graph time but two keyed wrappers. One opens a run: it marks the rows and makes the
run's cache. The other wraps, for one call of the model, whatever sits in each cross-attention slot, so that the order
of nodes does not matter and no other node ever finds anything of ours to change.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import Tensor

from ...mmdiff_core.model.attention import (
    competing,
    gated_subject_term,
    means_near,
    subject_term,
    word_columns,
    word_gates,
    word_maps,
)
from .base import Layer, attention_layers, check_base
from .keys_values import keys_values
from .lora import patch_unet
from .regions import block_size, reach
from .rows import DENSITY, MARK, PLACES, Meaning, mark_rows, repeated_rows
from .tell import warn
from .text import CONDITIONING_KEY, Binding
from .views import whole_latent

KEY = "mmdiff"


@dataclass(frozen=True)
class Applied:
    """One binding on a model: how strongly, and whether subjects are kept apart by their words."""

    binding: Binding
    weight: float
    by_word: bool


def apply_binding(model: ModelPatcher, binding: Binding, weight: float, by_word: bool) -> ModelPatcher:
    """A copy of the model that draws the binding's subjects too. Raises MMDiffError for a wrong base model.

    A checkpoint's LoRA is patched once, however many bindings of it the model already carries. The same binding again
    takes the place of what was applied before.
    """
    mmdiff = binding.mmdiff.core
    layers = check_base(model, mmdiff)
    model = model.clone()
    before: tuple[Applied, ...] = model.get_attachment(KEY) or ()
    if all(one.binding.mmdiff.core.source != mmdiff.source for one in before):
        patch_unet(model, mmdiff, layers)
    others = (one for one in before if one.binding.id != binding.id)
    applied = (*others, Applied(binding, weight, by_word))
    model.set_attachments(KEY, applied)
    for kind, wrapper in ((WrappersMP.OUTER_SAMPLE, _open_run(applied)), (WrappersMP.APPLY_MODEL, _bind_call)):
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, wrapper)
    if binding.nobody and not by_word:
        warn(
            "the prompt has words marked with <|nobody|>, which acts where separation is 'by word'; on this Apply "
            "MM-Diff Attention it is 'reference'."
        )
    return model


class Run:
    """What lives as long as one sampling run: what its rows mean, the windows as sigmas, and the subjects' keys and
    values.

    latent_size: (H, W) of the whole latent, of which the run's own may be a tile.
    """

    def __init__(self, applied: tuple[Applied, ...], guider: Any, size: tuple[int, int]) -> None:
        patcher = guider.model_patcher
        self.applied = applied
        self.latent_size, corner = whole_latent(itertools.chain.from_iterable(guider.conds.values()), size)
        bindings = [one.binding for one in applied]
        self.meanings = mark_rows(guider.conds, bindings, size, corner, patcher.load_device)
        every = list(itertools.chain.from_iterable(guider.conds.values()))
        self.uuids = {cond["uuid"] for cond in every}
        self.texts: dict[str, Tensor] = {}  # of bindings; zeroed copies say nothing of where words are
        for cond in every:
            if CONDITIONING_KEY in cond and cond["cross_attn"].any():
                self.texts.setdefault(cond[CONDITIONING_KEY], cond["cross_attn"])
        sampling = patcher.get_model_object("model_sampling")
        self.windows = [
            [
                (sampling.percent_to_sigma(s.start_percent), sampling.percent_to_sigma(s.end_percent))
                for s in one.binding.subjects
            ]
            for one in applied
        ]
        self.layers: dict[int, list[Layer]] = {}
        self.cache: dict[Any, tuple[Tensor, ...]] = {}
        self.warned: set[str] = set()

    def active(self, number: int, sigma: float) -> tuple[int, ...]:
        """The subjects of an applied binding that act at a noise level."""
        return tuple(i for i, (start, end) in enumerate(self.windows[number]) if end <= sigma <= start)

    def cross_layers(self, diffusion_model: torch.nn.Module) -> list[Layer]:
        """The cross-attention layers of a model; a multi-GPU run has several models."""
        if id(diffusion_model) not in self.layers:
            self.layers[id(diffusion_model)] = [layer for layer in attention_layers(diffusion_model) if layer.cross]
        return self.layers[id(diffusion_model)]

    def warn_once(self, message: str) -> None:
        if message not in self.warned:
            warn(message)
            self.warned.add(message)

    def keys_values(
        self,
        layer: Layer,
        active: tuple[tuple[int, tuple[int, ...]], ...],
        like: Tensor,
        patcher: ModelPatcher,
        negative: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """(1, T, C) keys and weighted values of applied bindings' active subjects, computed once in a run, or once for
        each strength where a hook changes the layer's weights on the way.

        active: pairs of an applied binding's number and its active subjects. negative: of what they leave to negative
        rows.
        """
        key = ("subjects", active, negative, *_circumstances(layer, like, patcher))
        if key not in self.cache:
            parts = []
            for number, indices in active:
                one = self.applied[number]
                subjects = [one.binding.subjects[index] for index in indices]
                tokens = torch.cat([s.negative if negative else s.tokens for s in subjects]).to(like)
                k, v = keys_values(layer, tokens, one.binding.mmdiff.core, patcher)
                weights = torch.cat([like.new_full((len(s.tokens),), one.weight * s.weight) for s in subjects])
                parts.append((k, v * weights[:, None]))
            k, v = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
            self.cache[key] = (k, v)
        return self.cache[key]

    def text_keys(self, layer: Layer, number: int, like: Tensor, patcher: ModelPatcher) -> Tensor:
        """(1, L, C) keys of the prompt that an applied binding's words stand in, computed as often."""
        key = ("text", number, *_circumstances(layer, like, patcher))
        if key not in self.cache:
            self.cache[key] = (layer.attention.to_k(self.texts[self.applied[number].binding.id][:1].to(like)),)
        return self.cache[key][0]


def _circumstances(layer: Layer, like: Tensor, patcher: ModelPatcher) -> tuple:
    """What else the keys and values of a run depend on."""
    hooks = patcher.current_hooks
    strengths = tuple(hook.strength for hook in hooks.hooks) if hooks is not None else ()
    return layer.path, like.device, like.dtype, hooks, strengths


def _open_run(applied: tuple[Applied, ...]) -> Callable:
    def open_run(executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Any:
        guider = executor.class_obj
        guider.model_options["transformer_options"][KEY] = Run(applied, guider, tuple(noise.shape[-2:]))
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
    warn("a compiled model mixes up its blocks' subjects, so this run is not compiled.")
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
    rows: Tensor | None = kwargs.pop(MARK, None)
    places: Tensor | None = kwargs.pop(PLACES, None)
    if run is not None and rows is None and not run.uuids.isdisjoint(options.get("uuids", ())):
        run.warn_once("another node dropped the marks of this batch's rows, so they get no subjects.")
    if run is not None and rows is not None:
        order, patcher = options.get("cond_or_uncond", ()), executor.class_obj.current_patcher
        if places is not None and places.shape[-2:] != (DENSITY * x.shape[-2], DENSITY * x.shape[-1]):
            run.warn_once(
                "another node runs the model on a part or at another size of the picture and does not say where it "
                "lies, so regions of subjects are scaled to it."
            )
        call = Call(run, rows, places, x.shape[-2:], order, patcher, float(t[0]))
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

    rows: (B, 1) the rows' marks; places: (B, 2, H, W) where they lie, or None where no subject is limited to a region.
    size: (H, W) of their latent. order: the host's list that says where each chunk of rows comes from, copied: an
    attention couple changes it in place. active: for each applied binding with any, the subjects that act at this noise
    level.
    """

    def __init__(
        self,
        run: Run,
        rows: Tensor,
        places: Tensor | None,
        size: Sequence[int],
        order: Sequence[int],
        patcher: ModelPatcher,
        sigma: float,
    ) -> None:
        self.run = run
        self.meanings = [run.meanings[number] for number in rows[:, 0].tolist()]
        self.places = places
        self.size = tuple(size)
        self.order = tuple(order)
        self.patcher = patcher
        numbers = {number for meaning in self.meanings for number in meaning.bindings}
        self.active = {number: active for number in numbers if (active := run.active(number, sigma))}


class BoundSlot:
    """A cross-attention slot for one call: what was there, or the host's own attention, plus the subjects' term."""

    def __init__(self, call: Call, layer: Layer, occupant: Callable | None) -> None:
        self.call = call
        self.layer = layer
        self.occupant = occupant

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        call, heads = self.call, self.layer.attention.heads
        if self.occupant is not None:
            out = self.occupant(q, k, v, extra_options).clone()
        else:
            precision = extra_options.get("attn_precision")
            out = optimized_attention(q, k, v, heads, attn_precision=precision, transformer_options=extra_options)
        grown = extra_options.get("cond_or_uncond_couple", extra_options.get("cond_or_uncond", call.order))
        rows = repeated_rows(len(call.meanings), call.order, grown)
        if len(rows) != len(q):
            call.run.warn_once("another node rearranged the rows of this batch, so they get no subjects.")
            return out
        coupled = len(rows) != len(call.meanings)
        block = block_size(extra_options, q.shape[1], call.size) if call.places is not None else ()
        for meaning, alike in itertools.groupby(range(len(rows)), lambda place: call.meanings[rows[place]]):
            here = list(alike)
            if any(number in call.active for number in meaning.bindings):
                own = meaning._replace(words=meaning.words and not coupled)
                part = slice(here[0], here[-1] + 1)
                places = None if call.places is None else call.places[rows[part]]
                out[part].add_(self._term(q[part], k[part], own, places, block))
        return out

    def _term(self, q: Tensor, k_text: Tensor, meaning: Meaning, places: Tensor | None, block: Sequence[int]) -> Tensor:
        """The subjects' term, (B, N, C), of rows that mean the same and lie at `places`, in a block of size (h, w)."""
        run, heads = self.call.run, self.layer.attention.heads
        active = tuple((n, self.call.active[n]) for n in meaning.bindings if n in self.call.active)
        found = run.keys_values(self.layer, active, q, self.call.patcher, meaning.negative)
        k, v = (part.expand(len(q), -1, -1) for part in found)
        subjects = [run.applied[n].binding.subjects[i] for n, indices in active for i in indices]
        sizes = [len(subject.tokens) for subject in subjects]
        limits = reach(subjects, sizes, block, places, run.latent_size, q)
        told = not meaning.negative or all(run.applied[n].binding.id in run.texts for n, _ in active)
        if not (meaning.words and told and any(run.applied[n].by_word for n, _ in active)):
            return subject_term(q, k, v, heads, limits)
        gates = torch.cat([self._gates(q, k_text, meaning.negative, *one) for one in active], dim=-1)
        return gated_subject_term(q, k, v, heads, sizes, gates, limits)

    def _gates(self, q: Tensor, k_text: Tensor, negative: bool, number: int, indices: Sequence[int]) -> Tensor:
        """(B, N, A) of an applied binding's active subjects. In a negative row too they follow the words of the
        binding's prompt, so that an empty picture acts where the subjects do, and nowhere else."""
        run = self.call.run
        if not run.applied[number].by_word:
            return torch.ones(*q.shape[:2], len(indices), device=q.device)
        if negative:
            k_text = run.text_keys(self.layer, number, q, self.call.patcher).expand(len(q), -1, -1)
        return gates_by_word(
            run.applied[number].binding, indices, q, k_text, self.layer.attention.heads, self.call.size
        )


def gates_by_word(
    binding: Binding, active: Sequence[int], q: Tensor, k_text: Tensor, heads: int, size: Sequence[int]
) -> Tensor:
    """(B, N, A) in [0, 1], how far each active subject may act on each pixel, by where the prompt looks for its word.

    It competes with the rest of the prompt, with words marked with <|nobody|> above all, and with the words of subjects
    that are not active now. q: (B, N, H d); k_text: (B, L, H d), of which a node may have cut some; size: (H, W) of the
    latent.
    """
    length = k_text.shape[1]
    own = [binding.words[index] for index in active]
    idle = [words for index, words in enumerate(binding.words) if index not in active]
    nobody, others = ([place for place in places if place < length] for places in (binding.nobody, binding.others))
    columns = word_columns(competing(own, idle, nobody, others), length)
    return word_gates(means_near(word_maps(q, k_text, columns, heads), *size), len(own))
