"""How far two ways to compute the same may lie apart, whatever the kernels and however many threads."""

from __future__ import annotations

from torch import Tensor

EQUAL = 1e-5
"""Of the largest value: a rounding is 6e-8 of it in fp32, and one behind another some ten of them are left."""


def error(found: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to the largest wanted value. Raises AssertionError where the shapes differ."""
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    found, wanted = found.detach(), wanted.detach()
    return float((found - wanted).abs().max() / wanted.abs().max())
