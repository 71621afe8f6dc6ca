"""How a whole picture is rendered. Each look keeps the subjects' outlines visible, for which it is told their masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from ..data.augment import LUMA

PLAIN = "plain"
_LUMA = np.array(LUMA, np.float32)

Rendered = tuple[np.ndarray, np.ndarray]


class Look(NamedTuple):
    """How captions put it, and what it does to pixels and masks."""

    phrase: str
    render: Callable[[np.ndarray, np.ndarray, np.random.Generator], Rendered]


def rendered(look: str, picture: np.ndarray, masks: np.ndarray, random: np.random.Generator) -> Rendered:
    """picture: (H, W, 3) in [0, 255]; masks: (S, H, W) in [0, 1]. Returns both, rendered; masks fit the pixels."""
    return (picture, masks) if look == PLAIN else LOOKS[look].render(picture, masks, random)


def _black_and_white(picture: np.ndarray, masks: np.ndarray, random: np.random.Generator) -> Rendered:
    grey = (picture @ _LUMA - 128) * 1.15 + 128
    inside = masks.sum(0)
    # A subject as bright as what is behind it would vanish without its colours: the two step apart.
    apart = (grey * inside).sum() / inside.sum() - (grey * (1 - inside)).sum() / (1 - inside).sum()
    grey += np.copysign(max(0, 70 - abs(apart)), apart) * (inside - 0.5)
    return np.repeat(grey[..., None], 3, 2), masks


def _pencil(picture: np.ndarray, masks: np.ndarray, random: np.random.Generator) -> Rendered:
    grey = picture @ _LUMA
    lines = np.clip(_steepness(grey) * 1.6 - 8, 0, 150)
    inside = masks.sum(0)
    paper = 246 - (1 - grey / 255) * (30 + 65 * inside)  # light shading, more of it on the subject
    paper -= lines * (0.45 + 0.55 * inside) + 190 * _outline(masks)
    paper += random.normal(0, 3, grey.shape)
    return np.clip(paper, 20, 255)[..., None] * np.array([1, 0.99, 0.96]), masks


def _pixels(picture: np.ndarray, masks: np.ndarray, random: np.random.Generator) -> Rendered:
    side = len(picture)
    block = max(2, side // 40)
    number = -(-side // block)
    excess = (0, number * block - side)

    def reduced(plane: np.ndarray) -> np.ndarray:
        return np.pad(plane, [excess, excess], mode="edge").reshape(number, block, number, block).mean((1, 3))

    def grown(small: np.ndarray) -> np.ndarray:
        return small.repeat(block, 1).repeat(block, 2)[:, :side, :side]

    colours = np.stack([reduced(plane) for plane in picture.transpose(2, 0, 1)])
    subjects = np.stack([reduced(mask) for mask in masks])
    # The outline before the few colours, which would round a faint one away.
    colours = np.round((colours * (1 - 0.35 * _outline(subjects))) / 36) * 36
    return grown(colours).transpose(1, 2, 0), grown(subjects)


def _watercolor(picture: np.ndarray, masks: np.ndarray, random: np.random.Generator) -> Rendered:
    soft = _filtered(picture, ImageFilter.MedianFilter(3), ImageFilter.GaussianBlur(len(picture) / 128))
    inside = masks.sum(0)[..., None]
    paper = random.normal(0, 1, (9, 9)).astype(np.float32)
    grain = np.asarray(Image.fromarray(paper).resize(picture.shape[1::-1], Image.Resampling.BICUBIC))[..., None]
    # Wet colour thins out in the background and gathers at the edge of what was painted last.
    strength = 0.55 + 0.35 * inside
    wash = 250 - (250 - soft) * strength + 7 * grain * (1 - 0.5 * inside)
    return np.clip(wash - 75 * _outline(masks)[..., None], 0, 255), masks


def _neon(picture: np.ndarray, masks: np.ndarray, random: np.random.Generator) -> Rendered:
    inside = masks.sum(0)[..., None]
    luma = (picture @ _LUMA)[..., None]
    vivid = luma + (picture - luma) * 1.7
    dark = np.array([26, 10, 52]) + luma * np.array([0.28, 0.16, 0.42])
    glow = random.uniform(0, 1, 3)
    glow = 255 * (0.35 + 0.65 * (glow - glow.min()) / (glow.max() - glow.min()))
    out = np.round((dark + (vivid - dark) * (0.12 + 0.88 * inside)) / 42) * 42
    edge = _outline(masks)[..., None]
    return np.clip(out + (glow - out) * edge, 0, 255), masks


def _steepness(grey: np.ndarray) -> np.ndarray:
    down, across = np.gradient(grey)
    return np.hypot(down, across)


def _outline(masks: np.ndarray) -> np.ndarray:
    """(H, W) in [0, 1]: a line of about a hundredth of the side, just inside every subject's edge."""
    wide = 2 * max(1, round(masks.shape[1] / 128)) + 1
    lines = []
    for mask in masks:
        image = Image.fromarray((mask * 255).astype(np.uint8))
        inner = np.asarray(image.filter(ImageFilter.MinFilter(wide)), np.float32) / 255
        lines.append(mask - inner)
    return np.clip(np.sum(lines, 0), 0, 1)


def _filtered(picture: np.ndarray, *filters: ImageFilter.Filter) -> np.ndarray:
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    for one in filters:
        image = image.filter(one)
    return np.asarray(image, np.float32)


LOOKS = {
    "pencil sketch": Look("a pencil sketch of", _pencil),
    "black and white": Look("a black and white photo of", _black_and_white),
    "pixel art": Look("pixel art of", _pixels),
    "watercolor": Look("a watercolor of", _watercolor),
    "neon poster": Look("a neon poster of", _neon),
}
