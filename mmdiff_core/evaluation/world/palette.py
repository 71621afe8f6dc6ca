"""A drawing in the colours of another one: decoys that colour alone can't tell from the subject."""

from __future__ import annotations

import torch
from torch import Tensor

_EPS = 1e-4


def in_colours_of(sprite: Tensor, other: Tensor) -> Tensor:
    """The linear map of colours that gives `sprite` the mean and covariance of `other`'s, with the least change.

    sprite, other: (4, H, W), straight RGBA in [0, 1]. Returns (4, H, W). Source: Pitié and Kokaram, "The linear
    Monge-Kantorovitch linear colour mapping for example-based colour transfer", 2007.
    """
    mean, covariance = _moments(sprite)
    wanted_mean, wanted = _moments(other)
    root = _power(covariance, 0.5)
    inverse = _power(covariance, -0.5)
    linear = inverse @ _power(root @ wanted @ root, 0.5) @ inverse
    colours = torch.einsum("ij,jhw->ihw", linear, sprite[:3] - mean[:, None, None]) + wanted_mean[:, None, None]
    return torch.cat((colours.clamp(0, 1), sprite[3:]))


def _moments(sprite: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (3,) and covariance (3, 3) of the colours, each pixel as much as it is opaque."""
    weight = sprite[3].flatten() / sprite[3].sum()
    colours = sprite[:3].flatten(1)
    mean = colours @ weight
    centred = colours - mean[:, None]
    return mean, (centred * weight) @ centred.T + _EPS * torch.eye(3)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=_EPS**2) ** exponent) @ vectors.T
