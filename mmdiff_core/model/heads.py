"""What turns image embeddings into conditions: the entity head, token fusion and the subject head.

Inner names are the reference's (mmdiff/model.py), so that a released part loads without renaming. Every width, depth
and token count is read from the tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .subject_head import SubjectHead
from .tensors import Tensors, under

SDXL_CONTEXT = 2048
"""Width of SDXL's cross-attention context; SD1.5's is 768."""


class EntityHead(nn.Module):
    """CLS to one entity embedding for each text encoder: proj_e(GELU(fc(LN(CLS)))) (reference: CLIPEmbedsProjHead)."""

    def __init__(self, tensors: Tensors, operations: Any = nn) -> None:
        super().__init__()
        hidden, width = tensors["fc.weight"].shape
        self.layernorm = operations.LayerNorm(width)
        self.fc = operations.Linear(width, hidden)
        self.projections = sorted(name for name in {key.split(".")[0] for key in tensors} if name.startswith("proj_"))
        for name in self.projections:
            self.add_module(name, operations.Linear(hidden, tensors[f"{name}.weight"].shape[0]))

    def forward(self, cls: Tensor) -> list[Tensor]:
        """(..., width) CLS to one (..., token width) embedding per text encoder, in the encoders' order."""
        hidden = nn.functional.gelu(self.fc(self.layernorm(cls)))
        return [getattr(self, name)(hidden) for name in self.projections]


class TokenFusion(nn.Module):
    """[token embedding ; entity embedding] to the embedding that takes the token's place (reference: MLP)."""

    def __init__(self, tensors: Tensors, operations: Any = nn) -> None:
        super().__init__()
        hidden, double = tensors["fc1.weight"].shape
        self.layernorm = operations.LayerNorm(double)
        self.fc1 = operations.Linear(double, hidden)
        self.fc2 = operations.Linear(hidden, tensors["fc2.weight"].shape[0])

    def forward(self, token_and_entity: Tensor) -> Tensor:
        """(..., 2 C) to (..., C)."""
        return self.fc2(nn.functional.gelu(self.fc1(self.layernorm(token_and_entity))))


class Heads(nn.Module):
    """The heads of a checkpoint, the only modules that run when a subject is encoded and a prompt is bound.

    entity is None and fuse empty in a checkpoint that leaves the prompt as it is.
    """

    ENCODERS = ("l", "g")

    def __init__(self, tensors: Tensors, head_dim: int, operations: Any = nn) -> None:
        super().__init__()
        entity = under(tensors, "entity")
        self.entity = EntityHead(entity, operations) if entity else None
        self.fuse = nn.ModuleDict(
            {
                encoder: TokenFusion(under(tensors, f"fuse.{encoder}"), operations)
                for encoder in self.ENCODERS
                if f"fuse.{encoder}.fc1.weight" in tensors
            }
        )
        self.subject = SubjectHead(under(tensors, "subject"), head_dim, operations)

    @property
    def encoders(self) -> tuple[str, ...]:
        """The text encoders of the base: those whose tokens are fused, else told by the context's width."""
        if self.fuse:
            return tuple(self.fuse)
        return self.ENCODERS if self.context_width == SDXL_CONTEXT else self.ENCODERS[:1]

    @property
    def cls_width(self) -> int:
        """Width of the vision encoder's projected CLS."""
        return self.subject.identity_width if self.entity is None else self.entity.fc.in_features

    @property
    def patch_width(self) -> int:
        """Width of the vision encoder's patch embeddings."""
        return self.subject.patch_width

    @property
    def identity_width(self) -> int:
        """Width of the identity vector that subject tokens start from."""
        return self.subject.identity_width

    @property
    def context_width(self) -> int:
        """Width of the UNet's cross-attention context."""
        return self.subject.context_width

    @property
    def tokens_per_reference(self) -> int:
        """Subject tokens that one photo gives; those of one patch where each patch is an identity."""
        return self.subject.tokens

    def token_width(self, encoder: str) -> int:
        """Width of a text encoder's token embeddings."""
        return self.fuse[encoder].fc2.out_features

    def entities(self, cls: Tensor) -> dict[str, Tensor]:
        """(..., cls_width) CLS to the entity embedding of each text encoder, (..., token width)."""
        return dict(zip(self.fuse, self.entity(cls), strict=True))

    def fuse_token(self, encoder: str, token: Tensor, entity: Tensor) -> Tensor:
        """(..., C) raw token embedding and (..., C) entity embedding to the (..., C) embedding that takes its place."""
        return self.fuse[encoder](torch.cat((token, entity), dim=-1))
