"""A photo, or a face in it, to the subject tokens that the UNet attends to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .refiner import SERefiner
from .tensors import Tensors, under


class SubjectHead(nn.Module):
    """Tokens start from an identity or are learned, and may then be refined by looking at patches.

    What a head does is told by its tensors. q0 is the start, LN(proj(identity)) cut into tokens:

        q0 + SERefiner(q0, patches)     MM-Diff (reference: FaceEmbedsProjHead), IP-Adapter FaceID Plus v2
        SERefiner(q0, patches)          FaceID Plus v1
        q0                              IP-Adapter, FaceID, Portrait; Full Face, where every patch is an identity
        SERefiner(latents, patches)     IP-Adapter Plus; Portrait "unnorm", with the identity as the only patch
    """

    def __init__(self, tensors: Tensors, head_dim: int, operations: Any = nn) -> None:
        super().__init__()
        self.latents = self.refiner = None
        if "latents" in tensors:
            _, number, width = tensors["latents"].shape
            self.latents = nn.Parameter(torch.empty(1, number, width))
        else:
            (self.dim,) = tensors["layer_norm.weight"].shape
            self.proj = _projection(under(tensors, "proj"), operations)
            self.layer_norm = operations.LayerNorm(self.dim)
        if refiner := under(tensors, "refiner"):
            self.refiner = SERefiner(refiner, head_dim, operations)

    @property
    def identity_width(self) -> int:
        """Width of what tokens start from, or of what learned ones look at."""
        if self.latents is not None:
            return self.refiner.proj_in.in_features
        return (self.proj if isinstance(self.proj, nn.Linear) else self.proj[0]).in_features

    @property
    def patch_width(self) -> int:
        """Width of the patch embeddings that tokens look at, or are made of."""
        return self.identity_width if self.refiner is None else self.refiner.proj_in.in_features

    @property
    def context_width(self) -> int:
        """Width of the tokens."""
        return self.dim if self.refiner is None else self.refiner.proj_out.out_features

    @property
    def tokens(self) -> int:
        """Tokens of one identity."""
        if self.latents is not None:
            return self.latents.shape[1]
        return (self.proj if isinstance(self.proj, nn.Linear) else self.proj[2]).out_features // self.dim

    def forward(self, identity: Tensor | None, patches: Tensor | None, shortcut: bool = True) -> Tensor:
        """(R, identity width) and (R, P, patch width) to (R, T, context width) subject tokens of R references.

        Either may be None where the checkpoint does not read it. shortcut: whether q0 is added to what was refined.
        """
        if self.latents is not None:
            seen = identity.unsqueeze(1) if patches is None else patches
            return self.refiner(self.latents.to(seen).expand(len(seen), -1, -1), seen)
        start = patches if identity is None else identity
        q0 = self.layer_norm(self.proj(start).reshape(len(start), -1, self.dim))
        if self.refiner is None:
            return q0
        refined = self.refiner(q0, patches)
        return q0 + refined if shortcut else refined


def _projection(tensors: Tensors, operations: Any) -> nn.Module:
    """One linear layer, or two with a GELU between them."""
    if "weight" in tensors:
        out, width = tensors["weight"].shape
        return operations.Linear(width, out)
    hidden, width = tensors["0.weight"].shape
    out = tensors["2.weight"].shape[0]
    return nn.Sequential(operations.Linear(width, hidden), nn.GELU(), operations.Linear(hidden, out))
