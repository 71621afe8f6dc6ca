"""References as other photos of the same subject, so that copying one solves nothing. The target is never touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

JITTER = 0.12  # brightness, contrast and saturation, up or down by this share
LUMA = (0.299, 0.587, 0.114)
"""Red, green and blue in a grey. Hues are turned at equal luma, so turned drawings have the same greys."""
# What lies behind the subject. Black comes most: that is what a mask leaves of a user's photo.
BACKGROUNDS = {"black": 0.5, "plain": 0.2, "noise": 0.15, "scene": 0.15}


class Changes(NamedTuple):
    """How far a photo may be from its subject.

    flips: share that is mirrored. turn: degrees to either side at most. fill: least and most of the photo's side that
    the subject's longer one takes. centred: the subject is in the middle of the photo, not anywhere.
    """

    flips: float = 0.5
    turn: float = 25.0
    fill: tuple[float, float] = (0.7, 1.0)
    centred: bool = False


USUAL = Changes()


def vary(
    subject: Image.Image,
    size: int,
    random: np.random.Generator,
    changes: Changes = USUAL,
    scene: Callable[[int, np.random.Generator], Image.Image] | None = None,
) -> Image.Image:
    """One more photo of a subject: flipped, turned, zoomed, with other light, on another background.

    subject: RGBA, cut out; outline and colours move together. size: side of the square photo, pixels. scene: draws a
    background of a given side; without it there are only black, plain and noisy ones. Returns RGBA, size x size: where
    the subject is, is opaque, and the background is there all the same.
    """
    if random.random() < changes.flips:
        subject = subject.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if max(subject.size) > 2 * size:  # turning the pixels of a large photo would only cost time
        subject = fitted(subject, 2 * size)
    subject = subject.rotate(random.uniform(-changes.turn, changes.turn), Image.Resampling.BILINEAR, expand=True)
    subject = fitted(subject, round(size * random.uniform(*changes.fill)))
    gain, contrast, saturation = random.uniform(1 - JITTER, 1 + JITTER, 3)
    subject = recoloured(subject, 0.0, saturation, gain * contrast, 128 * gain * (1 - contrast))

    kinds = [kind for kind in BACKGROUNDS if kind != "scene" or scene]
    weights = np.array([BACKGROUNDS[kind] for kind in kinds])
    kind = kinds[random.choice(len(kinds), p=weights / weights.sum())]
    if kind == "scene":
        photo = scene(size, random)
    elif kind == "noise":
        photo = Image.fromarray(random.integers(0, 256, (size, size, 3), np.uint8))
    else:
        photo = Image.new(
            "RGB", (size, size), tuple(random.integers(0, 256, 3).tolist()) if kind == "plain" else "black"
        )
    left, top = (
        (size - side) // 2 if changes.centred else int(random.integers(0, size - side + 1)) for side in subject.size
    )
    photo.paste(subject, (left, top), subject)
    opacity = Image.new("L", photo.size)
    opacity.paste(subject.getchannel("A"), (left, top))
    photo.putalpha(opacity)
    return photo


def fitted(picture: Image.Image, longer: int) -> Image.Image:
    """The picture with its longer side at `longer` pixels."""
    scale = longer / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2)


def recoloured(
    picture: Image.Image, hue: float, saturation: float = 1.0, gain: float = 1.0, offset: float = 0.0
) -> Image.Image:
    """RGBA with its hues turned by `hue` (radians) at equal luma, its saturation and brightness changed.

    Opacity stays. gain multiplies, offset (in 8-bit steps) adds.
    """
    cosine, sine = np.cos(hue), np.sin(hue)
    turned = _GREY + saturation * (cosine * _CHROMA + sine * _QUARTER_TURN)
    matrix = np.concatenate([gain * turned, np.full((3, 1), offset)], 1)
    colours = picture.convert("RGB").convert("RGB", tuple(matrix.ravel().tolist()))
    colours.putalpha(picture.getchannel("A"))
    return colours


# Luma and the two chroma axes of YIQ: hues turn in the plane of the chroma axes.
_FROM_RGB = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_TO_RGB = np.linalg.inv(_FROM_RGB)
_GREY = _TO_RGB @ np.diag([1, 0, 0]) @ _FROM_RGB
_CHROMA = _TO_RGB @ np.diag([0, 1, 1]) @ _FROM_RGB
_QUARTER_TURN = _TO_RGB @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ _FROM_RGB
