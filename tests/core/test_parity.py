"""Every part of the network against what the reference computed (tests/data/components.safetensors)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mmdiff_core.model.attention import attend, multimodal_cross_attention
from mmdiff_core.model.heads import EntityHead, TokenFusion
from mmdiff_core.model.lora import lora_tree
from mmdiff_core.model.refiner import SERefiner
from mmdiff_core.model.subject_head import SubjectHead
from mmdiff_core.model.tensors import under

RECORDED = load_file(Path(__file__).parents[1] / "data" / "components.safetensors")
BOUND = 1e-5


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def loaded(module: nn.Module, name: str) -> nn.Module:
    module.load_state_dict(under(RECORDED, f"{name}.weights"))
    return module.eval().requires_grad_(False)


def base_attention(name: str) -> nn.Module:
    tensors = under(RECORDED, f"{name}.base")
    base = nn.Module()
    for layer in ("to_q", "to_k", "to_v"):
        base.add_module(layer, nn.Linear(*reversed(tensors[f"{layer}.weight"].shape), bias=False))
    base.to_out = nn.ModuleList([nn.Linear(*reversed(tensors["to_out.0.weight"].shape))])
    base.load_state_dict(tensors)
    return base.requires_grad_(False)


def lora(name: str) -> nn.ModuleDict:
    return loaded(lora_tree(under(RECORDED, f"{name}.weights")), name)


def test_refiner():
    refiner = loaded(SERefiner(under(RECORDED, "refiner.weights"), head_dim=8), "refiner")
    out = refiner(RECORDED["refiner.in.query"], RECORDED["refiner.in.patches"])
    assert error(out, RECORDED["refiner.out"]) <= BOUND


def test_entity_head():
    head = loaded(EntityHead(under(RECORDED, "entity_head.weights")), "entity_head")
    for encoder, out in zip("lg", head(RECORDED["entity_head.in.cls"]), strict=True):
        assert error(out, RECORDED[f"entity_head.out.{encoder}"]) <= BOUND


def test_fusion():
    fuse = loaded(TokenFusion(under(RECORDED, "fuse.weights")), "fuse")
    assert error(fuse(RECORDED["fuse.in"]), RECORDED["fuse.out"]) <= BOUND


def test_subject_head():
    head = loaded(SubjectHead(under(RECORDED, "subject_head.weights"), head_dim=256), "subject_head")
    out = head(RECORDED["subject_head.in.identity"], RECORDED["subject_head.in.patches"])
    assert error(out, RECORDED["subject_head.out"]) <= BOUND


def test_self_attention_lora():
    base, pairs, x = base_attention("self_attention"), lora("self_attention"), RECORDED["self_attention.in"]
    q, k, v = (getattr(base, f"to_{n}")(x) + pairs[f"to_{n}_lora"](x) for n in "qkv")
    y = attend(q, k, v, heads=4)
    out = base.to_out[0](y) + pairs["to_out_lora"](y)
    assert error(out, RECORDED["self_attention.out"]) <= BOUND


@pytest.mark.parametrize("case", ["one", "two", "one_of_two", "three_references_one_slot"])
def test_cross_attention(case):
    recorded = under(RECORDED, f"cross_attention.{case}")
    arguments = (
        RECORDED["cross_attention.in"],
        RECORDED["cross_attention.in.text"],
        recorded["subject_tokens"],
        recorded["valid"],
        base_attention("cross_attention"),
        lora("cross_attention"),
    )
    out = multimodal_cross_attention(*arguments, heads=4, weight=float(recorded["scale"]))
    assert error(out, recorded["out"]) <= BOUND


def test_a_row_without_a_subject_gets_exactly_nothing():
    recorded = under(RECORDED, "cross_attention.two")
    arguments = [
        RECORDED["cross_attention.in"],
        RECORDED["cross_attention.in.text"],
        recorded["subject_tokens"],
        recorded["valid"],
        base_attention("cross_attention"),
        lora("cross_attention"),
    ]
    with_subjects = multimodal_cross_attention(*arguments, heads=4, weight=0.7)
    without = multimodal_cross_attention(*arguments, heads=4, weight=0.0)
    assert torch.equal(with_subjects[0], without[0])
    assert not torch.equal(with_subjects[1], without[1])
