"""The SE-Refiner: subject tokens look at the patches of the photo (reference: mmdiff/model.py, SERefiner)."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ..errors import MMDiffError


class RefinerAttention(nn.Module):
    """Attn(LN(q); KV = [LN(patches) ; LN(q)]): tokens attend to the patches and to each other."""

    def __init__(self, dim: int, head_dim: int, operations: Any = nn) -> None:
        super().__init__()
        self.heads = dim // head_dim
        self.norm1 = operations.LayerNorm(dim)
        self.norm2 = operations.LayerNorm(dim)
        self.to_q = operations.Linear(dim, dim, bias=False)
        self.to_kv = operations.Linear(dim, dim * 2, bias=False)
        self.to_out = operations.Linear(dim, dim, bias=False)

    def forward(self, query: Tensor, patches: Tensor) -> Tensor:
        """(B, T, D) tokens and (B, P, D) patches to the (B, T, D) update of the tokens."""
        query = self.norm2(query)
        q = self.to_q(query)
        k, v = self.to_kv(torch.cat((self.norm1(patches), query), dim=1)).chunk(2, dim=-1)
        q, k, v = (rearrange(x, "b n (h d) -> b h n d", h=self.heads) for x in (q, k, v))
        out = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class SERefiner(nn.Module):
    """LN(W q_L) after L layers of q <- q + Attn(q, W patches); q <- q + FFN(q)."""

    def __init__(self, patch_dim: int, dim: int, depth: int, head_dim: int, operations: Any = nn) -> None:
        super().__init__()
        if dim % head_dim:
            raise MMDiffError(f"The refiner is {dim} wide, which heads of the spec's head_dim {head_dim} can't share")
        self.proj_in = operations.Linear(patch_dim, dim)
        self.proj_out = operations.Linear(dim, dim)
        self.norm_out = operations.LayerNorm(dim)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    RefinerAttention(dim, head_dim, operations),
                    nn.Sequential(
                        operations.LayerNorm(dim),
                        operations.Linear(dim, dim * 2, bias=False),
                        nn.GELU(),
                        operations.Linear(dim * 2, dim, bias=False),
                    ),
                ]
            )
            for _ in range(depth)
        )

    def forward(self, query: Tensor, patches: Tensor) -> Tensor:
        """(B, T, D) tokens and (B, P, patch_dim) patch embeddings to (B, T, D) refined tokens."""
        patches = self.proj_in(patches)
        for attention, feed_forward in self.layers:
            query = query + attention(query, patches)
            query = query + feed_forward(query)
        return self.norm_out(self.proj_out(query))
