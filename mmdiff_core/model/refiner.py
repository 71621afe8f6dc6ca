"""The SE-Refiner: subject tokens look at the patches of the photo (reference: mmdiff/model.py, SERefiner).

IP-Adapter's resampler is the same network (reference: ip_adapter/resampler.py), of other widths.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ..errors import MMDiffError
from .tensors import Tensors, count, under


class RefinerAttention(nn.Module):
    """Attn(LN(q); KV = [LN(patches) ; LN(q)]): tokens attend to the patches and to each other."""

    def __init__(self, tensors: Tensors, head_dim: int, operations: Any = nn) -> None:
        super().__init__()
        inner, dim = tensors["to_q.weight"].shape
        if inner % head_dim:
            raise MMDiffError(f"The refiner is {inner} wide, which heads of the spec's head_dim {head_dim} can't share")
        self.heads = inner // head_dim
        self.norm1 = operations.LayerNorm(dim)
        self.norm2 = operations.LayerNorm(dim)
        self.to_q = operations.Linear(dim, inner, bias=False)
        self.to_kv = operations.Linear(dim, inner * 2, bias=False)
        self.to_out = operations.Linear(inner, dim, bias=False)

    def forward(self, query: Tensor, patches: Tensor) -> Tensor:
        """(B, T, D) tokens and (B, P, D) patches to the (B, T, D) update of the tokens."""
        query = self.norm2(query)
        q = self.to_q(query)
        k, v = self.to_kv(torch.cat((self.norm1(patches), query), dim=1)).chunk(2, dim=-1)
        q, k, v = (rearrange(x, "b n (h d) -> b h n d", h=self.heads) for x in (q, k, v))
        out = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


def _feed_forward(tensors: Tensors, operations: Any) -> nn.Sequential:
    hidden, dim = tensors["1.weight"].shape
    return nn.Sequential(
        operations.LayerNorm(dim),
        operations.Linear(dim, hidden, bias=False),
        nn.GELU(),
        operations.Linear(hidden, dim, bias=False),
    )


class SERefiner(nn.Module):
    """LN(W q_L) after L layers of q <- q + Attn(q, W patches); q <- q + FFN(q)."""

    def __init__(self, tensors: Tensors, head_dim: int, operations: Any = nn) -> None:
        super().__init__()
        dim, patch = tensors["proj_in.weight"].shape
        out = tensors["proj_out.weight"].shape[0]
        self.proj_in = operations.Linear(patch, dim)
        self.proj_out = operations.Linear(dim, out)
        self.norm_out = operations.LayerNorm(out)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    RefinerAttention(under(tensors, f"layers.{number}.0"), head_dim, operations),
                    _feed_forward(under(tensors, f"layers.{number}.1"), operations),
                ]
            )
            for number in range(count(tensors, "layers"))
        )

    def forward(self, query: Tensor, patches: Tensor) -> Tensor:
        """(B, T, D) tokens and (B, P, patch width) patch embeddings to (B, T, context width) refined tokens."""
        patches = self.proj_in(patches)
        for attention, feed_forward in self.layers:
            query = query + attention(query, patches)
            query = query + feed_forward(query)
        return self.norm_out(self.proj_out(query))
