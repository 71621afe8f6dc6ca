"""How alike a drawn subject is to its drawing, once the drawing is laid over it as well as it can be.

Retrieval is soon perfect: it only asks who is nearest. Here shapes and details count. The world's references are
drawings with an outline, so the drawing is scaled, mirrored, tilted and moved over the picture to where it correlates
best; there the structural similarity inside its outline and the agreement of edges are taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fft
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate, max_pool2d, pad

SIDE = 64  # pictures are compared at this size
SIZES = tuple(round(SIDE * share) for share in (0.3, 0.34, 0.38, 0.42, 0.47, 0.52, 0.58, 0.64, 0.71, 0.79))
ANGLES = (-8, -4, 4, 8)  # degrees, tried around the best upright place
WINDOW = 7
EDGE = 0.12  # change of colour from pixel to pixel that is an edge


class Fidelity(NamedTuple):
    """ssim in [-1, 1] inside the outline; edges: F1 in [0, 1]; box: left, top, width, height, shares of the picture."""

    ssim: float
    edges: float
    box: tuple[float, float, float, float]


def fidelity(picture: Tensor, sprite: Tensor) -> Fidelity:
    """picture: (3, H, W) in [0, 1], a square. sprite: (4, h, w), straight RGBA in [0, 1], cut to its outline."""
    seen = interpolate(picture[None], (SIDE, SIDE), mode="bilinear", antialias=True)[0]
    upright = [_resized(turned, size) for size in SIZES for turned in (sprite, sprite.flip(-1))]
    best = _best(seen, upright)
    tilted = [_turned(best.layer, angle) for angle in ANGLES]
    layer, top, left = _best(seen, [best.layer, *(one for one in tilted if max(one.shape) <= SIDE)])
    height, width = layer.shape[-2:]
    opacity = torch.zeros(SIDE, SIDE)
    colours = torch.zeros(3, SIDE, SIDE)
    opacity[top : top + height, left : left + width] = layer[3]
    colours[:, top : top + height, left : left + width] = layer[:3]
    laid = seen * (1 - opacity) + colours * opacity
    box = tuple(value / SIDE for value in (left, top, width, height))
    return Fidelity(ssim(seen, laid, opacity), edge_f1(seen, laid, opacity), box)


def ssim(one: Tensor, other: Tensor, weight: Tensor) -> float:
    """Structural similarity of two pictures (3, H, W) in [0, 1], averaged with a weight (H, W); 1 for equal ones."""
    a, b = one[None], other[None]

    def mean(x: Tensor) -> Tensor:
        return avg_pool2d(x, WINDOW, 1, WINDOW // 2, count_include_pad=False)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b, both = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2, mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    local = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float((local[0].mean(0) * weight).sum() / weight.sum())


def edge_f1(one: Tensor, other: Tensor, opacity: Tensor) -> float:
    """Agreement of the edges of two pictures in and right around an outline.

    An edge agrees with one of its direction that is at most a pixel away.
    """
    near = _grown(opacity[None] > 0.5)
    a, b = _edges(one) & near, _edges(other) & near
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    precision = (a & _grown(b)).sum() / a.sum()
    recall = (b & _grown(a)).sum() / b.sum()
    return float(2 * precision * recall / (precision + recall).clamp(min=1e-6))


class _Found(NamedTuple):
    layer: Tensor
    top: int
    left: int


def _best(picture: Tensor, layers: Sequence[Tensor]) -> _Found:
    """The layer (4, h, w) and its place where it correlates best with the picture inside its outline.

    Colours count against their common mean, so one-coloured things are told apart too. All places at once, by FFT.
    """
    padded = torch.stack([pad(layer, (0, SIDE - layer.shape[2], 0, SIDE - layer.shape[1])) for layer in layers])
    opacity = padded[:, 3:]
    total = 3 * opacity.sum((1, 2, 3))
    mean = (padded[:, :3] * opacity).sum((1, 2, 3)) / total
    template = (padded[:, :3] - mean[:, None, None, None]) * opacity
    kernels = fft.rfft2(torch.cat((template, opacity), 1)).conj()
    planes = fft.rfft2(torch.cat((picture, picture.sum(0, keepdim=True), (picture**2).sum(0, keepdim=True))))
    product = fft.irfft2((planes[:3] * kernels[:, :3]).sum(1))
    sums, squares = fft.irfft2(planes[3] * kernels[:, 3]), fft.irfft2(planes[4] * kernels[:, 3])
    spread = (squares - sums**2 / total[:, None, None]).clamp(min=1e-3)
    own = (template**2 / opacity.clamp(min=1e-3)).sum((1, 2, 3))
    score = product / (spread * own[:, None, None].clamp(min=1e-3)).sqrt()
    for number, layer in enumerate(layers):  # beyond these the layer would stick out of the picture
        score[number, SIDE - layer.shape[1] + 1 :] = -2
        score[number, :, SIDE - layer.shape[2] + 1 :] = -2
    number, place = divmod(int(score.argmax()), SIDE * SIDE)
    return _Found(layers[number], *divmod(place, SIDE))


def _turned(layer: Tensor, degrees: float) -> Tensor:
    """A layer turned around its middle, in a square that holds all of it."""
    height, width = layer.shape[-2:]
    side = math.ceil(math.hypot(height, width))
    top, left = (side - height) // 2, (side - width) // 2
    square = pad(layer, (left, side - width - left, top, side - height - top))
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    theta = torch.tensor([[[cosine, -sine, 0.0], [sine, cosine, 0.0]]])
    layers = torch.cat((square[:3] * square[3:], square[3:]))[None]
    turned = grid_sample(layers, affine_grid(theta, list(layers.shape), False), align_corners=False)[0]
    rows, columns = (turned[3].amax(axis) > 0.02 for axis in (1, 0))
    turned = turned[:, rows][:, :, columns]
    return torch.cat(((turned[:3] / turned[3:].clamp(min=1e-4)).clamp(0, 1), turned[3:]))


def _resized(sprite: Tensor, size: int) -> Tensor:
    """Longer side to `size`; colours are averaged as much as they are opaque."""
    scale = size / max(sprite.shape[-2:])
    shape = [max(1, round(side * scale)) for side in sprite.shape[-2:]]
    layers = torch.cat((sprite[:3] * sprite[3:], sprite[3:]))
    small = interpolate(layers[None], shape, mode="bilinear", antialias=True)[0]
    return torch.cat(((small[:3] / small[3:].clamp(min=1e-4)).clamp(0, 1), small[3:]))


def _edges(picture: Tensor) -> Tensor:
    """(3, H, W) to (2, H, W) bool: where colours change most down a column and along a row, lines one pixel wide."""
    edges = torch.zeros(2, *picture.shape[-2:], dtype=torch.bool)
    for axis, window in enumerate(((3, 1), (1, 3))):
        change = picture.diff(dim=axis + 1).abs().amax(0)
        crest = max_pool2d(change[None], window, 1, (window[0] // 2, window[1] // 2))[0] == change
        edges[axis, : change.shape[0], : change.shape[1]] = crest & (change > EDGE)
    return edges


def _grown(area: Tensor) -> Tensor:
    return max_pool2d(area.float(), 3, 1, 1) > 0
