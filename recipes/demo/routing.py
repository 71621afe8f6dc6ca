"""Where cross-attention should look: a place of the picture at that part of the photo that it shows.

In settled scenes that is known, and saying so teaches a small base within minutes what it would else have to find out
from the errors of whole pictures. It acts on visual words, which no prompt has, and on entity words.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from einops import einsum, rearrange
from torch import Tensor, nn

EPS = 1e-6
BLOCKS = ("down_blocks.2", "mid_block", "up_blocks")  # those before don't know yet where in the picture they are


class Plain:
    """An attention processor of plain products, which at these sizes are faster on CPUs than attention in one piece."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            rearrange(each, "b l (h c) -> b h l c", h=attn.heads)
            for each in (attn.to_q(hidden_states) * attn.scale, attn.to_k(context), attn.to_v(context))
        )
        scores = query @ key.transpose(2, 3)
        if attention_mask is not None:
            scores = scores + attention_mask[:, None]
        probabilities = scores.softmax(-1)
        self.see(probabilities)
        return attn.to_out[0](rearrange(probabilities @ value, "b h l c -> b l (h c)"))

    def see(self, probabilities: Tensor) -> None:
        """(B, heads, queries, keys), before they are used."""


class Watched(Plain):
    """One that keeps the mean of its heads' last probabilities: (B, queries, keys)."""

    def __init__(self) -> None:
        self.probabilities: Tensor | None = None

    def see(self, probabilities: Tensor) -> None:
        self.probabilities = probabilities.sum(1) / probabilities.shape[1]  # back through `mean` is a third slower


def watch(unet: UNet2DConditionModel) -> list[Watched]:
    """Put a watcher on each cross-attention of the blocks that are taught."""
    unet.set_attn_processor(Plain())
    watchers = []
    for name, module in unet.named_modules():
        if name.endswith("attn2") and name.startswith(BLOCKS):
            watchers.append(Watched())
            module.set_processor(watchers[-1])
    return watchers


def misled(watchers: Iterable[Watched], masks: Tensor, words: int, entities: Tensor, whose: bool = True) -> Tensor:
    """Mean negative logs of shares of attention. Inside subjects: of the right visual words among all visual words, and
    of the right entity word among all entity words. Outside: of what is no visual word.

    masks: (B, S, H, H), zero for subjects that are not there. words: of a subject, on a square; the last S x words keys
    of a watcher are theirs. entities: (B, S, L) of 0 and 1, one of the first L keys for each subject that has one.
    whose: False leaves out all that says which subject a place belongs to, or that it belongs to none: inside subjects,
    the right visual words among the subject's own.
    """
    side = round(words**0.5)
    losses = []
    for watcher in watchers:
        every, watcher.probabilities = watcher.probabilities, None
        found = every[..., -masks.shape[1] * words :]
        size = round(found.shape[1] ** 0.5)
        inside = nn.functional.adaptive_avg_pool2d(masks, size).flatten(2) > 0.5
        parts = found.unflatten(2, (-1, words))
        right = einsum(parts, shown(masks, size, side), "b q s w, b s q w -> b s q")
        if not whose:
            own = parts.sum(-1).transpose(1, 2)
            losses.append(_mean(((own + EPS) / (right + EPS)).log(), inside))
            continue
        named = einsum(every[..., : entities.shape[2]], entities, "b q l, b s l -> b s q")
        on_words = found.sum(-1)
        outside = ~inside.any(1) & masks.flatten(1).any(1)[:, None]
        losses.append(
            _mean(((on_words[:, None] + EPS) / (right + EPS)).log(), inside)
            - _mean((1 + EPS - on_words).log(), outside)
            + _mean(((named.sum(1, keepdim=True) + EPS) / (named + EPS)).log(), inside & entities.any(2, keepdim=True))
        )
    return torch.stack(losses).mean()


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)


def shown(masks: Tensor, size: int, side: int) -> Tensor:
    """(B, S, size^2, side^2) of 0 and 1: whether a cell of the picture shows some of a cell of the photo, which the
    subject fills from edge to edge along its longer side."""
    low, high = zip(*(_ends(masks.amax(axis) > 0.5) for axis in (3, 2)), strict=True)
    length = torch.maximum(high[0] - low[0], high[1] - low[1])
    rows, columns = (_overlap(((low[i] + high[i] - length) / 2), length, size, side) for i in range(2))
    return einsum(rows, columns, "b s y v, b s x u -> b s y x v u").flatten(4).flatten(2, 3)


def _ends(there: Tensor) -> tuple[Tensor, Tensor]:
    """Where (..., H) bool begins to be true, and where it ends, as shares of H."""
    count = there.shape[-1]
    there = there.float()
    return there.argmax(-1) / count, 1 - there.flip(-1).argmax(-1) / count


def _overlap(start: Tensor, length: Tensor, size: int, side: int) -> Tensor:
    """(..., size, side) of 0 and 1: which of `side` cells from start on, `length` long together, lie at least by a
    quarter under which of the picture's cells."""
    cells = torch.arange(size, device=length.device) / size
    parts = start[..., None] + length[..., None] * torch.arange(side, device=length.device) / side
    ends = torch.minimum(cells[:, None] + 1 / size, (parts + length[..., None] / side)[..., None, :])
    common = ends - torch.maximum(cells[:, None], parts[..., None, :])
    shorter = (length / side).clamp(max=1 / size)[..., None, None]
    return (common > shorter / 4).float()
