"""What pulls a subject's cross-attention maps into its mask, in training only.

Two maps are supervised. In the text branch, where the entity word's token is looked at; in the image branch, where the
subject's own tokens are. Both are averaged over heads before anything else sees them.

One trap is in the method: all subject tokens share one softmax, so with a single subject its image map is 1 everywhere,
whatever the weights are, and the term has no gradient. It takes a second subject, or a null token: a learned key that
competes for pixels in the map, but never in the output, so that the checkpoint runs without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from .errors import MMDiffError
from .model.attention import grid

_EPS = 1e-5


def text_maps(q: Tensor, k: Tensor, words: Tensor, heads: int) -> Tensor:
    """How much each pixel looks at each entity word.

    q: (B, N, H d) queries; k: (B, L, H d) keys of the text; words: (B, S) position of each subject's word in the text.
    Returns (B, N, S), attention probability averaged over heads.
    """
    return _probabilities(q, k, heads).gather(2, words.unsqueeze(1).expand(-1, q.shape[1], -1))


def image_maps(q: Tensor, k: Tensor, valid: Tensor, heads: int, null: Tensor | None = None) -> Tensor:
    """How much each pixel looks at each subject's tokens.

    q: (B, N, H d) queries; k: (B, T, H d) keys of S subjects' tokens, one subject after another; valid: (B, S) bool,
    which slots hold a subject; null: (B, 1, H d) key of the null token, or None. Returns (B, N, S), attention
    probability summed over a subject's tokens and averaged over heads.
    """
    subjects = valid.shape[1]
    allowed = valid.repeat_interleave(k.shape[1] // subjects, dim=1)
    if null is not None:
        k, allowed = torch.cat((k, null), dim=1), nn.functional.pad(allowed, (0, 1), value=True)
    probabilities = _probabilities(q, k, heads, allowed)
    if null is not None:
        probabilities = probabilities[..., :-1]
    return probabilities.unflatten(-1, (subjects, -1)).sum(dim=-1)


def balanced_l1(maps: Tensor, masks: Tensor) -> Tensor:
    """Mean attention outside of the mask less mean attention inside, each over its own area (FastComposer).

    maps, masks: (B, N, S). Returns (B, S) in [-1, 1], lower is better.
    """
    outside = (maps * (1 - masks)).sum(dim=1) / ((1 - masks).sum(dim=1) + _EPS)
    inside = (maps * masks).sum(dim=1) / (masks.sum(dim=1) + _EPS)
    return outside - inside


def mse(maps: Tensor, masks: Tensor) -> Tensor:
    """Mean squared distance of a map from its mask (StoryMaker). maps, masks: (B, N, S). Returns (B, S)."""
    return (maps - masks).square().mean(dim=1)


FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"balanced_l1": balanced_l1, "mse": mse}


def resize_masks(masks: Tensor, pixels: int) -> Tensor:
    """Masks on an attention layer's grid, by area.

    masks: (B, S, H, W) in [0, 1]; pixels: number of the layer's pixels, a grid of the same aspect. Returns
    (B, pixels, S).
    """
    sides = grid(pixels, *masks.shape[-2:])
    return rearrange(nn.functional.adaptive_avg_pool2d(masks, sides), "b s h w -> b (h w) s")


def mask_loss(maps: Sequence[Tensor], masks: Tensor, form: str) -> Tensor:
    """The mean over layers of one form of the constraint.

    maps: (B, N, S) for each layer, N its number of pixels; masks: (B, S, H, W) in [0, 1]; form: of FORMS.
    Returns (B, S).
    """
    grids = {layer.shape[1]: resize_masks(masks, layer.shape[1]) for layer in maps}
    return torch.stack([FORMS[form](layer.float(), grids[layer.shape[1]]) for layer in maps]).mean(dim=0)


def has_gradient(valid: Tensor, null_token: bool) -> Tensor:
    """(B, S) bool slots that hold a subject, to (B, S) bool slots whose image map can change at all."""
    return valid if null_token else valid & (valid.sum(dim=1, keepdim=True) > 1)


def choose_layers(layers: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The layers at or below the wanted module paths, e.g. `down_blocks.2`, `mid_block`, `up_blocks.0.attentions.1`.

    layers: paths of a diffusers UNet's cross-attention layers. Raises MMDiffError for a path that matches none.
    """
    for path in wanted:
        if not any(_below(layer, path) for layer in layers):
            raise MMDiffError(
                f"'{path}' matches no cross-attention layer of this UNet; it has them in "
                f"{', '.join(dict.fromkeys(map(_block, layers)))}."
            )
    return [layer for layer in layers if any(_below(layer, path) for path in wanted)]


def coarse_blocks(layers: Sequence[str], depth: int) -> list[str]:
    """The blocks to constrain unless told otherwise: all with cross-attention but those of the finest such resolution.

    These are 11 of SD1.5's 16 layers (FastComposer's) and 60 of SDXL's 70 (StoryMaker's). depth: number of the UNet's
    down blocks. Where all are of one resolution, they are all taken.
    """
    blocks = list(dict.fromkeys(map(_block, layers)))
    level = {block: _level(block, depth) for block in blocks}
    return [block for block in blocks if level[block] > min(level.values())] or blocks


def _block(layer: str) -> str:
    return layer[: layer.index(".attentions")]


def _level(block: str, depth: int) -> int:
    """How often the picture was halved before this block."""
    kind, _, number = block.partition(".")
    return {"down_blocks": int(number or 0), "up_blocks": depth - 1 - int(number or 0), "mid_block": depth}[kind]


def _below(layer: str, path: str) -> bool:
    return layer == path or layer.startswith(path + ".")


def _probabilities(q: Tensor, k: Tensor, heads: int, allowed: Tensor | None = None) -> Tensor:
    """(B, N, H d) and (B, T, H d) to (B, N, T), averaged over heads; allowed: (B, T) bool."""
    q, k = (rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (q, k))
    logits = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).float()
    if allowed is not None:
        logits = logits.masked_fill(~allowed[:, None, None, :], torch.finfo(logits.dtype).min)
    return logits.softmax(dim=-1).mean(dim=1)
