"""What turns image embeddings into conditions: the entity head, token fusion and the subject head.

Inner names are the reference's (mmdiff/model.py), so that a released part loads without renaming. Every width, depth
and token count is read from the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .refiner import SERefiner

Tensors = Mapping[str, Tensor]


def under(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    """The tensors below `prefix.`, with the prefix taken off."""
    return {key[len(prefix) + 1 :]: value for key, value in tensors.items() if key.startswith(prefix + ".")}


def count(tensors: Tensors, prefix: str) -> int:
    """How many numbered children `prefix.` has."""
    return len({key.split(".", 1)[0] for key in under(tensors, prefix)})


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


class SubjectHead(nn.Module):
    """q0 + SERefiner(q0, patches) with q0 = LN(MLP(identity)) cut into tokens (reference: FaceEmbedsProjHead)."""

    def __init__(self, tensors: Tensors, head_dim: int, operations: Any = nn) -> None:
        super().__init__()
        hidden, identity = tensors["proj.0.weight"].shape
        (self.dim,) = tensors["layer_norm.weight"].shape
        self.proj = nn.Sequential(
            operations.Linear(identity, hidden),
            nn.GELU(),
            operations.Linear(hidden, tensors["proj.2.weight"].shape[0]),
        )
        self.layer_norm = operations.LayerNorm(self.dim)
        self.refiner = SERefiner(
            patch_dim=tensors["refiner.proj_in.weight"].shape[1],
            dim=self.dim,
            depth=count(tensors, "refiner.layers"),
            head_dim=head_dim,
            operations=operations,
        )

    def forward(self, identity: Tensor, patches: Tensor) -> Tensor:
        """(R, identity width) and (R, P, patch width) to (R, T, context width) subject tokens of R references."""
        q0 = self.layer_norm(self.proj(identity).unflatten(-1, (-1, self.dim)))
        return q0 + self.refiner(q0, patches)


class Heads(nn.Module):
    """The three heads of a checkpoint, the only modules that run when a subject is encoded and a prompt is bound."""

    ENCODERS = ("l", "g")

    def __init__(self, tensors: Tensors, head_dim: int, operations: Any = nn) -> None:
        super().__init__()
        self.entity = EntityHead(under(tensors, "entity"), operations)
        self.fuse = nn.ModuleDict(
            {
                encoder: TokenFusion(under(tensors, f"fuse.{encoder}"), operations)
                for encoder in self.ENCODERS
                if f"fuse.{encoder}.fc1.weight" in tensors
            }
        )
        self.subject = SubjectHead(under(tensors, "subject"), head_dim, operations)

    @property
    def cls_width(self) -> int:
        """Width of the vision encoder's projected CLS."""
        return self.entity.fc.in_features

    @property
    def patch_width(self) -> int:
        """Width of the vision encoder's patch embeddings."""
        return self.subject.refiner.proj_in.in_features

    @property
    def identity_width(self) -> int:
        """Width of the identity vector that subject tokens start from."""
        return self.subject.proj[0].in_features

    @property
    def context_width(self) -> int:
        """Width of the UNet's cross-attention context."""
        return self.subject.dim

    @property
    def tokens_per_reference(self) -> int:
        """Subject tokens that one photo gives."""
        return self.subject.proj[2].out_features // self.subject.dim

    def token_width(self, encoder: str) -> int:
        """Width of a text encoder's token embeddings."""
        return self.fuse[encoder].fc2.out_features

    def entities(self, cls: Tensor) -> dict[str, Tensor]:
        """(..., cls_width) CLS to the entity embedding of each text encoder, (..., token width)."""
        return dict(zip(self.fuse, self.entity(cls), strict=True))

    def fuse_token(self, encoder: str, token: Tensor, entity: Tensor) -> Tensor:
        """(..., C) raw token embedding and (..., C) entity embedding to the (..., C) embedding that takes its place."""
        return self.fuse[encoder](torch.cat((token, entity), dim=-1))
