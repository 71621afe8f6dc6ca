"""Which sprites look alike: perceptual thumbnails, compared with their mirror images too."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..data.augment import LUMA

SIDE = 16
SAME = 0.08  # root mean square difference of colours (range 0 to 1) below which two sprites are one picture
SAME_OUTLINE, SAME_SHADING = 0.14, 0.75  # of two sprites that are one drawing in two colourings


def near_duplicates(sprites: list[Image.Image]) -> np.ndarray:
    """(N, N) bool: same outline and same colours, but for what a viewer would not notice."""
    colours, opacity = _thumbnails(sprites)
    return np.maximum(_difference(colours), _difference(opacity) * 0.7) < SAME


def same_drawing(sprites: list[Image.Image]) -> np.ndarray:
    """(N, N) bool: same outline and same shading up to a factor, whatever the colours: a green and a blue book."""
    colours, opacity = _thumbnails(sprites)
    shading = (colours @ np.array(LUMA, np.float32)) * opacity
    mean = shading.sum((1, 2)) / opacity.sum((1, 2))
    shading -= mean[:, None, None] * opacity
    shading /= np.sqrt((shading**2).sum((1, 2)))[:, None, None] + 1e-3
    flat, mirrored = shading.reshape(len(shading), -1), shading[:, :, ::-1].reshape(len(shading), -1)
    alike = np.maximum(np.abs(flat @ flat.T), np.abs(flat @ mirrored.T))
    return (_difference(opacity) * 0.7 < SAME_OUTLINE) & (alike > SAME_SHADING)


def _thumbnails(sprites: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    """Colours on grey (N, SIDE, SIDE, 3) and opacity (N, SIDE, SIDE), both in [0, 1]; sprites centred in a square."""
    thumbnails = []
    for sprite in sprites:
        side = max(sprite.size)
        square = Image.new("RGBA", (side, side))
        square.paste(sprite, ((side - sprite.width) // 2, (side - sprite.height) // 2))
        thumbnails.append(np.asarray(square.convert("RGBa").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32))
    values = np.stack(thumbnails) / 255
    opacity = values[..., 3]
    return values[..., :3] + 0.5 * (1 - opacity[..., None]), opacity


def _difference(thumbnails: np.ndarray) -> np.ndarray:
    """(N, N) root mean square difference, the smaller of as they are and one of them mirrored."""
    flat, mirrored = thumbnails.reshape(len(thumbnails), -1), thumbnails[:, :, ::-1].reshape(len(thumbnails), -1)
    squares = (flat**2).sum(1)
    product = np.maximum(flat @ flat.T, flat @ mirrored.T)
    return np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * product, 0) / flat.shape[1])
