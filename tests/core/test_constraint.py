"""The attention-map constraints: what they reward, what they can't act on, and which layers they are on."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from mmdiff_core import MMDiffError
from mmdiff_core.constraint import (
    balanced_l1,
    choose_layers,
    coarse_blocks,
    has_gradient,
    image_maps,
    mask_loss,
    mse,
    resize_masks,
    text_maps,
)
from mmdiff_core.model.attention import attend
from tests.arithmetic import EQUAL

UNETS = {
    "sd15": {
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
    },
}
"""What makes the base models' layers, in diffusers' terms."""


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def halves(size=8):
    """(1, 2, size, size): the left half and the right half."""
    left = torch.zeros(size, size)
    left[:, : size // 2] = 1
    return torch.stack((left, 1 - left))[None]


@pytest.mark.parametrize("form", ["balanced_l1", "mse"])
def test_attention_in_the_mask_is_best_and_swapped_attention_worst(form):
    masks = halves()
    right, even = resize_masks(masks, 64), torch.full((1, 64, 2), 0.5)
    values = [mask_loss([maps], masks, form) for maps in (right, even, right.flip(-1))]
    assert (values[0] < values[1]).all() and (values[1] < values[2]).all()


def test_values_of_the_forms():
    """A map of 0.8 inside and 0.1 outside, whatever the areas are; and its squared distance."""
    mask = torch.zeros(1, 10, 1)
    mask[:, :2] = 1
    maps = torch.where(mask.bool(), 0.8, 0.1)
    torch.testing.assert_close(balanced_l1(maps, mask), torch.tensor([[0.1 - 0.8]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(mse(maps, mask), torch.tensor([[(2 * 0.2**2 + 8 * 0.1**2) / 10]]))


def test_masks_are_resized_by_area_and_keep_their_aspect():
    masks = torch.zeros(1, 1, 8, 16)
    masks[..., :2, :3] = 1
    found = resize_masks(masks, 4 * 8)[0, :, 0].view(4, 8)
    wanted = torch.zeros(4, 8)
    wanted[0, 0], wanted[0, 1] = 1, 0.5
    assert torch.equal(found, wanted)


def test_layers_of_several_sizes_count_equally():
    masks = halves()
    maps = [resize_masks(masks, 64), resize_masks(masks, 16).flip(-1)]
    each = [mask_loss([one], masks, "balanced_l1") for one in maps]
    torch.testing.assert_close(mask_loss(maps, masks, "balanced_l1"), (each[0] + each[1]) / 2)


def test_maps_are_the_probabilities_that_attention_uses():
    """Of the word's token; and of a subject's tokens together: attention to values that mark them says the same."""
    q, k, heads = rand(2, 9, 8), rand(2, 6, 8, seed=1), 2
    words = torch.tensor([[1, 4], [2, 0]])
    marks = torch.nn.functional.one_hot(torch.arange(6), 8)[None].repeat(2, 1, heads)[..., : 8 * heads].float()
    # every head's value of token t is the t-th unit vector, so the output is its probability
    wide_q, wide_k = (torch.nn.functional.pad(x.unflatten(-1, (heads, 4)), (0, 4)).flatten(-2) for x in (q, k))
    probabilities = attend(wide_q * 2**0.5, wide_k, marks, heads).unflatten(-1, (heads, 8)).mean(dim=2)[..., :6]
    torch.testing.assert_close(
        text_maps(q, k, words, heads),
        torch.stack([probabilities[row][:, words[row]] for row in range(2)]),
    )
    valid = torch.ones(2, 3, dtype=torch.bool)
    torch.testing.assert_close(image_maps(q, k, valid, heads), probabilities.unflatten(-1, (3, 2)).sum(-1))


def test_an_empty_slot_takes_no_attention():
    q, k = rand(1, 9, 8), rand(1, 6, 8, seed=1)
    two, padded = torch.tensor([[True, True]]), torch.tensor([[True, True, False]])
    found = image_maps(q, k, padded, heads=2)
    assert (found[..., 2] == 0).all()
    torch.testing.assert_close(found[..., :2], image_maps(q, k[:, :4], two, heads=2))


def gradient(subjects, null):
    """The gradient that the image constraint gives to the subjects' keys, at most."""
    q, k = rand(1, 64, 8), rand(1, 4 * subjects, 8, seed=1).requires_grad_()
    background = rand(1, 1, 8, seed=2) if null else None
    maps = image_maps(q, k, torch.ones(1, subjects, dtype=torch.bool), heads=2, null=background)
    mask_loss([maps], halves()[:, :subjects], "balanced_l1").sum().backward()
    return float(k.grad.abs().max())


def test_the_trap_of_one_subject():
    """Alone in its softmax, a subject has a map of 1 everywhere: the constraint is constant. Two subjects, or a null
    token, make it act."""
    assert gradient(1, null=False) < EQUAL * gradient(2, null=False)
    assert gradient(2, null=False) > 1e-3
    assert gradient(1, null=True) > 1e-3


def test_only_what_can_change_is_counted():
    valid = torch.tensor([[True, True], [True, False], [False, False]])
    assert has_gradient(valid, null_token=False).tolist() == [[True, True], [False, False], [False, False]]
    assert has_gradient(valid, null_token=True).tolist() == valid.tolist()


@pytest.mark.parametrize(("base", "all_layers", "coarse"), [("sd15", 16, 11), ("sdxl", 70, 60)])
def test_layers_of_the_real_bases(base, all_layers, coarse):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[base])
    layers = [name.removesuffix(".processor") for name in unet.attn_processors if "attn2" in name]
    depth = len(unet.config.block_out_channels)
    assert len(layers) == all_layers
    blocks = coarse_blocks(layers, depth)
    assert len(choose_layers(layers, blocks)) == coarse
    each = {
        block: choose_layers(layers, [block])
        for block in dict.fromkeys(name.split(".attentions")[0] for name in layers)
    }
    assert sum(map(len, each.values())) == all_layers and all(each.values()), "every block can be named"
    if base == "sdxl":
        assert len(each["up_blocks.0"]) == 30 and "up_blocks.0" in blocks, "an SD1.5 list would drop these"


def test_a_layer_that_does_not_exist_is_named():
    layers = [
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2",
        "mid_block.attentions.0.transformer_blocks.0.attn2",
    ]
    with pytest.raises(MMDiffError, match=r"'up_blocks\.3' matches no .*down_blocks\.1, mid_block"):
        choose_layers(layers, ["mid_block", "up_blocks.3"])
    with pytest.raises(MMDiffError, match=r"'down_blocks\.1\.att'"):
        choose_layers(layers, ["down_blocks.1.att"])
