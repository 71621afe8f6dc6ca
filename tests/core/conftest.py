"""A small checkpoint whose every LoRA has an effect."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmdiff_core import MMDiff, Spec
from mmdiff_core.model.fresh import Widths, fresh_mmdiff

SPEC = Spec(head_dim=8)


@pytest.fixture
def make_tensors() -> Callable[[int], dict[str, Tensor]]:
    """Makes the tensors of a checkpoint file, for a width of the UNet's context.

    It has two text encoders, text LoRA and a part of a tuned vision tower.
    """

    def make(context: int) -> dict[str, Tensor]:
        torch.manual_seed(0)
        widths = Widths(12, 10, 12, context, tokens={"l": 6, "g": 8}, attention=[8, 8, 12, 12])
        made = fresh_mmdiff(widths, SPEC, rank=3, depth=2).tensors()
        for encoder, width in widths.tokens.items():
            made[f"text.{encoder}.layers.0.self_attn.q_proj.down.weight"] = torch.randn(2, width)
            made[f"text.{encoder}.layers.0.self_attn.q_proj.up.weight"] = torch.randn(width, 2)
        made["vision.visual_projection.weight"] = torch.randn(12, 10)
        return {key: torch.randn_like(value) if key.endswith("up.weight") else value for key, value in made.items()}

    return make


@pytest.fixture
def tensors(make_tensors: Callable[[int], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Those of a context 16 wide."""
    return make_tensors(16)


@pytest.fixture
def make(tensors: dict[str, Tensor]) -> Callable[..., MMDiff]:
    """Makes the checkpoint, with a part of its spec or its source changed."""
    return lambda source="a hash", **spec: MMDiff(tensors, SPEC.replace(**spec), source)
