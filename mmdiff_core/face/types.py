"""What face analysis hands on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Face:
    """The faces of a subject's references, one row each.

    embeds: (N, D_id) recogniser vectors, length 1. crops: (N, H, W, 3) aligned faces in [0, 1].
    """

    embeds: Tensor
    crops: Tensor
