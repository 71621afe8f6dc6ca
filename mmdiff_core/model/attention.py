"""Multi-modal cross-attention: the text branch, and beside it a branch over the subject tokens.

    out = (W_o + dW_o) [ softmax(Q K_t) V_t + weight * softmax(Q K_s) V_s ],   Q = (W_q + dW_q) x

(reference: mmdiff/attention_processor.py, LoRACrossAttnProcessor). `subject_term` is the second summand; everything
else here decides which subject a pixel may look at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
from einops import rearrange
from torch import Tensor, nn

SHARPNESS = 6.0
"""Exponent of the word maps before they compete for a pixel, so that many words which look everywhere alike don't
outweigh one that is looked for here: a word's map is seldom more than three times its mean."""
NEAR = 0.15
"""How far around a pixel its words are looked for, of the picture's side. A subject's map has holes, which every other
word of the prompt would take, since each is looked for a little more there than on average."""
NOBODY = 4
"""How many other words a word marked with <|nobody|> counts for."""
ENOUGH = 1 / 3
"""The share of a pixel from which subjects have all of it; words like "a" and "on" look at what stands beside them."""


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Multi-head softmax(q k^T / sqrt(d) + bias) v on unsplit heads: (B, N, H d), (B, T, H d) twice -> (B, N, H d)."""
    q, k, v = (rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (q, k, v))
    return rearrange(nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias), "b h n d -> b n (h d)")


def subject_term(q: Tensor, k: Tensor, v: Tensor, heads: int, reach: Tensor | None = None) -> Tensor:
    """All subjects' tokens in one softmax.

    q: (B, N, H d) queries; k, v: (B, T, H d) of the subject tokens; reach: (B, N, T) in [0, 1], how far each token may
    act on each pixel (the subject's region mask). Where one subject's mask is 1 and the others' 0, that subject is
    alone in the softmax; where all are 0, the term is 0.
    """
    if reach is None:
        return attend(q, k, v, heads)
    return attend(q, k, v, heads, _bias(reach).to(q.dtype)) * reach.amax(dim=-1, keepdim=True).to(q.dtype)


def _bias(reach: Tensor) -> Tensor:
    """(B, N, T) in [0, 1] to the (B, 1, N, T) logits it adds; where all are 0, which a softmax can't take, none."""
    return reach.float().log().masked_fill(reach.amax(dim=-1, keepdim=True) == 0, 0.0).unsqueeze(1)


def word_columns(words: Sequence[Sequence[int]], length: int) -> Tensor:
    """(L, W) of 0 and 1, which of a text's L tokens are of which word, from the positions of each, in order."""
    columns = torch.zeros(length, len(words))
    for word, positions in enumerate(words):
        columns[list(positions), word] = 1
    return columns


def competing(
    own: Sequence[Sequence[int]], idle: Sequence[Sequence[int]], nobody: Sequence[int], others: Sequence[int]
) -> list[Sequence[int]]:
    """What `word_gates` lets compete: the words of each subject that acts, of each that does not act now, and the
    tokens of the rest of the prompt, where a word marked with <|nobody|> counts for several."""
    return [*own, *idle, *([place] for place in (*others, *tuple(nobody) * NOBODY))]


def word_maps(q: Tensor, k: Tensor, columns: Tensor, heads: int) -> Tensor:
    """Where the text branch attends to each of W words.

    q: (B, N, H d); k: (B, L, H d) of the text; columns: (L, W) or (B, L, W), as `word_columns`. Returns (B, N, W):
    attention probability, averaged over heads, summed over a word's tokens.
    """
    q, k = (rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (q, k))
    attention = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).float().softmax(dim=-1).mean(dim=1)
    return attention @ columns.to(attention.device)


@cache
def grid(pixels: int, height: int, width: int) -> tuple[int, int]:
    """(h, w) of so many pixels that has the shape of a picture of height x width, as nearly as can be."""
    rows = (row for row in range(1, pixels + 1) if pixels % row == 0)
    found = min(rows, key=lambda row: abs(math.log(row * row * width / (pixels * height))))
    return found, pixels // found


def means_near(maps: Tensor, height: int, width: int) -> Tensor:
    """(B, N, W) maps of a picture of height x width to their means NEAR each pixel."""
    radius = max(1, round(NEAR * maps.shape[1] ** 0.5))
    means = maps.mT.unflatten(-1, grid(maps.shape[1], height, width))
    for size, padding in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
        means = nn.functional.avg_pool2d(means, size, stride=1, padding=padding, count_include_pad=False)
    return means.flatten(-2).mT


def word_gates(maps: Tensor, subjects: int) -> Tensor:
    """(B, N, W) word maps, the first S of them of subjects, to (B, N, S) gates: how far each subject may act.

    Each map counts over its own mean, sharpened, and all share the pixel. So subjects keep out of what other words are
    looked for at, and have the pixel for themselves where they have ENOUGH of it. In a prompt without other words the
    gates sum to 1 everywhere. Computed from logarithms, as a softmax, so that this holds where no word is looked for.
    """
    tiny = torch.finfo(maps.dtype).tiny
    relative = maps / maps.mean(dim=1, keepdim=True).clamp_min(tiny)
    own = (SHARPNESS * relative.clamp_min(tiny).log()).softmax(dim=-1)[..., :subjects]
    return own / own.sum(dim=-1, keepdim=True).clamp_min(ENOUGH)


def gated_subject_term(
    q: Tensor, k: Tensor, v: Tensor, heads: int, sizes: Sequence[int], gates: Tensor, reach: Tensor | None = None
) -> Tensor:
    """Each subject in a softmax of its own, its term gated per pixel; for one subject the same as `subject_term`.

    sizes: tokens of each of S subjects, in the order of k and v; gates: (B, N, S); reach as in `subject_term`. The
    gates scale the few attention probabilities, so that every further subject costs next to nothing.
    """
    q, k, v = (rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (q, k, v))
    logits = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).float()
    if reach is not None:
        each = reach.split(list(sizes), dim=-1)
        logits = logits + torch.cat([_bias(own) for own in each], dim=-1)
        gates = gates * torch.stack([own.amax(dim=-1) for own in each], dim=-1)
    shares = [
        own.softmax(dim=-1) * gate.unsqueeze(1)
        for own, gate in zip(logits.split(list(sizes), dim=-1), gates.split(1, dim=-1), strict=True)
    ]
    return rearrange(torch.cat(shares, dim=-1).to(v.dtype) @ v, "b h n d -> b n (h d)")


def adapted(layer: nn.Module, lora: nn.ModuleDict, name: str, x: Tensor) -> Tensor:
    """A base layer and its LoRA `NAME_lora`, where it has one."""
    return layer(x) + lora[f"{name}_lora"](x) if f"{name}_lora" in lora else layer(x)


def subject_projection(base: nn.Module, lora: nn.ModuleDict, name: str, subject_tokens: Tensor) -> Tensor:
    """(B, T, D) subject tokens to their (B, T, C) keys (`to_k`) or values (`to_v`).

    By the base weight, without the text LoRA, and the image LoRA; or, as in IP-Adapter, by a matrix of their own.
    """
    if f"{name}_image" in lora:
        return lora[f"{name}_image"](subject_tokens)
    return getattr(base, name)(subject_tokens) + lora[f"{name}_lora_image"](subject_tokens)


def multimodal_cross_attention(
    x: Tensor,
    text: Tensor,
    subject_tokens: Tensor,
    valid: Tensor,
    base: nn.Module,
    lora: nn.ModuleDict,
    heads: int,
    weight: float,
    observe: Callable[[Tensor, Tensor, Tensor], None] | None = None,
    columns: Tensor | None = None,
    guide: Tensor | None = None,
) -> Tensor:
    """The whole layer, as it is trained.

    x: (B, N, C); text: (B, L, D); subject_tokens: (B, T, D), the slots' tokens one after another; valid: (B, S) bool,
    which slots of a row hold a subject (T is a multiple of S). A row without a valid slot gets exactly nothing from
    subjects. base: the frozen attention (to_q, to_k, to_v, to_out[0]); lora: its pairs `to_{q,k,v,out}_lora`, if any,
    and `to_{k,v}_lora_image` or whole `to_{k,v}_image` (see `subject_projection`). observe: is shown the queries, the
    text's keys and the subjects' keys. columns: (B, L, W) for separation by word in a square picture, not trained with:
    the tokens of each of the S subjects' words, then of each word that competes; else all subjects share one softmax.
    guide: (B, L, D), the text that these tokens are of, where it is not the row's own.
    """
    q = adapted(base.to_q, lora, "to_q", x)
    k = adapted(base.to_k, lora, "to_k", text)
    v = adapted(base.to_v, lora, "to_v", text)
    k_subject = subject_projection(base, lora, "to_k", subject_tokens)
    v_subject = subject_projection(base, lora, "to_v", subject_tokens)
    if observe is not None:
        observe(q, k, k_subject)
    reach = valid.repeat_interleave(subject_tokens.shape[1] // valid.shape[1], dim=1)
    reach = reach.unsqueeze(1).expand(-1, x.shape[1], -1)
    if columns is None:
        term = subject_term(q, k_subject, v_subject, heads, reach)
    else:
        subjects = valid.shape[1]
        k_guide = k if guide is None else adapted(base.to_k, lora, "to_k", guide)
        gates = word_gates(means_near(word_maps(q, k_guide, columns, heads), 1, 1), subjects)
        sizes = [subject_tokens.shape[1] // subjects] * subjects
        term = gated_subject_term(q, k_subject, v_subject, heads, sizes, gates, reach)
    out = attend(q, k, v, heads) + weight * term
    return adapted(base.to_out[0], lora, "to_out", out)
