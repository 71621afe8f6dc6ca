"""Multi-modal cross-attention and what decides which subject a pixel looks at."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmdiff_core import multimodal_cross_attention, subject_term
from mmdiff_core.model.attention import (
    ENOUGH,
    NEAR,
    attend,
    competing,
    gated_subject_term,
    grid,
    means_near,
    word_columns,
    word_gates,
    word_maps,
)
from mmdiff_core.model.lora import lora_tree

ROWS, PIXELS, HEADS, WIDTH, CONTEXT, WORDS = 3, 6, 2, 8, 10, 5
SLOTS, TOKENS = 2, 4  # tokens of each slot


def close(a, b):
    return torch.allclose(a, b, atol=1e-5, rtol=1e-4)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def qkv(seed=0, tokens=SLOTS * TOKENS, rows=ROWS):
    return tuple(random(rows, n, WIDTH, seed=seed + i) for i, n in enumerate((PIXELS, tokens, tokens)))


@pytest.fixture
def layer():
    """The frozen attention and its pairs, every one with an effect."""
    torch.manual_seed(0)
    base = nn.Module()
    for name, width in (("to_q", WIDTH), ("to_k", CONTEXT), ("to_v", CONTEXT)):
        base.add_module(name, nn.Linear(width, WIDTH, bias=False))
    base.to_out = nn.ModuleList([nn.Linear(WIDTH, WIDTH)])
    tensors = {}
    for name in ("to_q_lora", "to_k_lora", "to_v_lora", "to_out_lora", "to_k_lora_image", "to_v_lora_image"):
        keyed = CONTEXT if name[3] in "kv" else WIDTH
        tensors[f"{name}.down.weight"], tensors[f"{name}.up.weight"] = torch.randn(3, keyed), torch.randn(WIDTH, 3)
    lora = lora_tree(tensors)
    lora.load_state_dict(tensors)
    return base.requires_grad_(False), lora.requires_grad_(False)


def run(layer, subject_tokens, valid, weight=0.7, columns=None, text=2, guide=None):
    """text, guide: seeds."""
    x, text = random(ROWS, PIXELS, WIDTH, seed=1), random(ROWS, WORDS, CONTEXT, seed=text)
    guide = None if guide is None else random(ROWS, WORDS, CONTEXT, seed=guide)
    return multimodal_cross_attention(
        x, text, subject_tokens, valid, *layer, heads=HEADS, weight=weight, columns=columns, guide=guide
    )


SUBJECTS = random(ROWS, SLOTS * TOKENS, CONTEXT, seed=3)
VALID = torch.tensor([[True, True], [True, False], [False, False]])


def test_attend_is_the_softmax_of_the_paper():
    q, k, v = qkv()
    out = torch.empty_like(q)
    for row in range(ROWS):
        for pixel in range(PIXELS):
            for head in range(HEADS):
                of = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
                logits = k[row, :, of] @ q[row, pixel, of] / math.sqrt(WIDTH // HEADS)
                share = logits.exp() / logits.exp().sum()
                out[row, pixel, of] = share @ v[row, :, of]
    assert close(attend(q, k, v, HEADS), out)


def test_a_row_without_a_subject_gets_exactly_the_text(layer):
    found, text = run(layer, SUBJECTS, VALID), run(layer, SUBJECTS, VALID, weight=0.0)
    assert torch.equal(found[2], text[2])
    assert not close(found[0], text[0]) and not close(found[1], text[1])


def test_an_empty_slot_is_as_if_it_were_not_there(layer):
    found = run(layer, SUBJECTS, VALID)
    alone = run(layer, SUBJECTS[:, :TOKENS], VALID[:, :1])
    assert close(found[1], alone[1])
    noise = SUBJECTS.clone()
    noise[1, TOKENS:] = 999  # however well it fits the queries
    assert torch.equal(run(layer, noise, VALID)[1], found[1])


def test_the_order_of_subjects_does_not_matter(layer):
    swapped = torch.cat(SUBJECTS.split(TOKENS, dim=1)[::-1], dim=1)
    assert close(run(layer, swapped, VALID.flip(1)), run(layer, SUBJECTS, VALID))


def test_the_weight_is_a_factor_before_the_output_layer(layer):
    none, half, whole = (run(layer, SUBJECTS, VALID, weight=weight) for weight in (0.0, 0.5, 1.0))
    assert close(half, (none + whole) / 2)


def without_effect(layer, name):
    """The output once the named LoRA does nothing."""
    up = layer[1][name].up.weight
    kept, up[:] = up.clone(), 0
    out = run(layer, SUBJECTS, VALID) - run(layer, SUBJECTS, VALID, weight=0.0)
    up[:] = kept
    return out


def test_which_lora_the_subjects_meet(layer):
    """Queries and output are shared with the text; keys and values have an image LoRA, and none of the text's."""
    term = run(layer, SUBJECTS, VALID) - run(layer, SUBJECTS, VALID, weight=0.0)
    for name in ("to_k_lora", "to_v_lora"):
        assert close(without_effect(layer, name)[:2], term[:2])
    for name in ("to_q_lora", "to_out_lora", "to_k_lora_image", "to_v_lora_image"):
        assert not close(without_effect(layer, name)[:2], term[:2])


def test_the_subjects_lora_does_not_touch_the_text(layer):
    text = run(layer, SUBJECTS, VALID, weight=0.0)
    for name in ("to_k_lora_image", "to_v_lora_image"):
        layer[1][name].up.weight[:] = 0
    assert torch.equal(run(layer, SUBJECTS, VALID, weight=0.0), text)


def reach_of(*subjects, rows=ROWS):
    """Each subject's map over the pixels, for each of its tokens."""
    return torch.stack(subjects, dim=-1).repeat_interleave(TOKENS, dim=-1).expand(rows, -1, -1)


def test_a_subject_whose_reach_is_alone_is_alone_in_the_softmax():
    q, k, v = qkv()
    k[:, TOKENS:] *= 999  # the other one fits the queries far better
    left = torch.tensor([1.0, 1, 1, 0, 0, 0])
    term = subject_term(q, k, v, HEADS, reach_of(left, 1 - left))
    for number, of in enumerate((slice(0, 3), slice(3, 6))):
        own = slice(number * TOKENS, (number + 1) * TOKENS)
        assert close(term[:, of], subject_term(q[:, of], k[:, own], v[:, own], HEADS))


def test_where_nothing_reaches_the_term_is_exactly_nothing():
    q, k, v = qkv()
    left = torch.tensor([1.0, 1, 1, 0, 0, 0])
    gates = torch.full((ROWS, PIXELS, SLOTS), 0.5)
    for term in (
        subject_term(q, k, v, HEADS, reach_of(left, left)),
        gated_subject_term(q, k, v, HEADS, [TOKENS, TOKENS], gates, reach_of(left, left)),
    ):
        assert (term[:, 3:] == 0).all() and (term[:, :3] != 0).all()


def test_a_reach_of_1_everywhere_changes_nothing():
    q, k, v = qkv()
    ones = torch.ones(PIXELS)
    assert close(subject_term(q, k, v, HEADS, reach_of(ones, ones)), subject_term(q, k, v, HEADS))


def test_half_a_reach_is_half_a_term_for_one_subject():
    q, k, v = qkv(tokens=TOKENS)
    half = reach_of(torch.full((PIXELS,), 0.5))
    assert close(subject_term(q, k, v, HEADS, half), subject_term(q, k, v, HEADS) / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_reach_in_half_precision_is_finite(dtype):
    q, k, v = (x.to(dtype) for x in qkv())
    left = torch.tensor([1.0, 1, 1, 0, 0, 0])
    gates = torch.full((ROWS, PIXELS, SLOTS), 0.5)
    for reach in (reach_of(left, 1 - left), reach_of(left, left)):
        for term in (
            subject_term(q, k, v, HEADS, reach),
            gated_subject_term(q, k, v, HEADS, [TOKENS, TOKENS], gates, reach),
        ):
            assert term.dtype == dtype and term.isfinite().all()


def test_a_layer_by_word_gates_each_slot(layer):
    """Words 1 and 3 are the slots', 0 and 2 compete. A row without subjects is the text branch alone."""
    columns = word_columns(competing([[1], [3]], [], [], [0, 2]), WORDS).expand(ROWS, -1, -1)
    gated, shared, plain = (
        run(layer, SUBJECTS, valid, columns=c)
        for valid, c in ((VALID, columns), (VALID, None), (VALID & False, columns))
    )
    assert close(gated[2], plain[2]) and not close(gated[:2], shared[:2])
    everywhere = torch.zeros_like(columns)[..., :2]
    everywhere[:, 1, 0] = 1  # a second slot whose word stands nowhere, and nothing else
    assert close(run(layer, SUBJECTS, VALID, columns=everywhere)[1], shared[1])


def test_gates_follow_the_words_of_another_text(layer):
    """The subjects' share, of a row whose own text has no words for them, is that of the row that has."""
    columns = word_columns(competing([[1], [3]], [], [], [0, 2]), WORDS).expand(ROWS, -1, -1)

    def share(**texts):
        return run(layer, SUBJECTS, VALID, columns=columns, **texts) - run(layer, SUBJECTS, VALID & False, **texts)

    assert close(share(text=9, guide=2), share(text=2)) and not close(share(text=9), share(text=2))


def test_word_maps_are_the_text_branchs_attention():
    q, k, _ = qkv(tokens=WORDS)
    one_by_one = word_maps(q, k, word_columns([[position] for position in range(WORDS)], WORDS), HEADS)
    assert close(one_by_one.sum(dim=-1), torch.ones(ROWS, PIXELS))
    several = word_maps(q, k, word_columns([[3], [0, 4]], WORDS), HEADS)
    assert close(several, torch.stack([one_by_one[..., 3], one_by_one[..., 0] + one_by_one[..., 4]], dim=-1))
    head = WIDTH // HEADS
    by_hand = [(q[..., of] @ k[..., of].mT / math.sqrt(head)).softmax(-1) for of in (slice(head), slice(head, None))]
    assert close(one_by_one, sum(by_hand) / HEADS)


MAPS = st.lists(st.lists(st.just(0.0) | st.floats(1e-6, 1), min_size=3, max_size=3), min_size=1, max_size=9).map(
    lambda rows: torch.tensor([rows])
)


@given(MAPS)
def test_gates_sum_to_one_at_every_pixel(maps):
    gates = word_gates(maps, 3)
    assert gates.shape == maps.shape and gates.isfinite().all() and gates.min() >= 0
    assert close(gates.sum(dim=-1), torch.ones(maps.shape[:2]))


@given(MAPS)
def test_gates_do_not_know_the_order_of_subjects(maps):
    order = [2, 0, 1]
    assert close(word_gates(maps[..., order], 3), word_gates(maps, 3)[..., order])


@given(MAPS, st.floats(0.01, 1))
def test_a_word_that_is_weak_everywhere_loses_nothing(maps, factor):
    """A map counts over its own mean."""
    assert close(word_gates(maps * torch.tensor([factor, 1, 1]), 2), word_gates(maps, 2))


@given(MAPS)
def test_other_words_take_from_all_subjects_alike(maps):
    """Never more than one, and all of the pixel where the others have a third of it or less."""
    alone, beside = word_gates(maps[..., :2], 2), word_gates(maps, 2)
    left = beside.sum(dim=-1, keepdim=True)
    assert close(beside, alone * left) and left.max() <= 1 + 1e-6
    third = word_gates(maps, 3)[..., 2:]
    assert close(left, ((1 - third) / ENOUGH).clamp(max=1))


def test_one_subject_keeps_out_of_where_another_word_is_looked_for():
    maps = torch.tensor([[[0.4, 0.1, 0.2], [0.1, 0.4, 0.2], [0.1, 0.1, 0.2]]])
    own, other, neither = word_gates(maps, 1)[0, :, 0].tolist()
    assert own == 1 and other < 0.1 and neither < 0.5


def test_gates_where_no_word_is_looked_for():
    assert close(word_gates(torch.zeros(1, 4, 3), 2), torch.full((1, 4, 2), 1 / 2))


def test_a_pixel_goes_to_the_word_it_looks_for():
    maps = torch.tensor([[[0.4, 0.1], [0.1, 0.4], [0.2, 0.2]]])
    gates = word_gates(maps, 2)[0]
    assert gates[0, 0] > 0.9 and gates[1, 1] > 0.9 and close(gates[2], torch.tensor([0.5, 0.5]))


@given(st.integers(0, 99), st.booleans())
def test_one_subject_gated_is_one_subject(seed, regions):
    q, k, v = qkv(seed, tokens=TOKENS)
    reach = reach_of(random(PIXELS, seed=seed).clamp(0, 1)) if regions else None
    gated = gated_subject_term(q, k, v, HEADS, [TOKENS], torch.ones(ROWS, PIXELS, 1), reach)
    assert close(gated, subject_term(q, k, v, HEADS, reach))


@given(st.integers(0, 99), st.permutations(range(3)))
def test_the_order_of_subjects_changes_no_term(seed, order):
    """Subjects with 4, 8 and 4 tokens, regions and gates; only where they stand differs."""
    sizes = [4, 8, 4]
    q, k, v = qkv(seed, tokens=sum(sizes))
    gates = random(ROWS, PIXELS, 3, seed=seed).softmax(dim=-1)
    regions = random(ROWS, PIXELS, 3, seed=seed + 1).clamp(0, 1)

    def ordered(order):
        keys, values = (torch.cat([x.split(sizes, dim=1)[i] for i in order], dim=1) for x in (k, v))
        lengths = [sizes[i] for i in order]
        reach = torch.cat([regions[..., i : i + 1].expand(-1, -1, sizes[i]) for i in order], dim=-1)
        return (
            subject_term(q, keys, values, HEADS),
            subject_term(q, keys, values, HEADS, reach),
            gated_subject_term(q, keys, values, HEADS, lengths, gates[..., order], reach),
        )

    for found, wanted in zip(ordered(order), ordered(range(3)), strict=True):
        assert close(found, wanted)


def test_gated_terms_are_each_subjects_own_and_scaled():
    sizes = [TOKENS, 2 * TOKENS]
    q, k, v = qkv(tokens=sum(sizes))
    gates = random(ROWS, PIXELS, 2, seed=9).softmax(dim=-1)
    parts = zip(k.split(sizes, dim=1), v.split(sizes, dim=1), gates.split(1, dim=-1), strict=True)
    wanted = sum(gate * subject_term(q, keys, values, HEADS) for keys, values, gate in parts)
    assert close(gated_subject_term(q, k, v, HEADS, sizes, gates), wanted)


def test_a_gated_subject_acts_only_in_its_region():
    q, k, v = qkv()
    left = torch.tensor([1.0, 1, 1, 0, 0, 0])
    gates = torch.full((ROWS, PIXELS, SLOTS), 0.5)
    term = gated_subject_term(q, k, v, HEADS, [TOKENS, TOKENS], gates, reach_of(left, torch.ones(PIXELS)))
    second = subject_term(q, k[:, TOKENS:], v[:, TOKENS:], HEADS) / 2
    assert close(term[:, 3:], second[:, 3:])
    first = subject_term(q, k[:, :TOKENS], v[:, :TOKENS], HEADS) / 2
    assert close(term[:, :3], (first + second)[:, :3])


@pytest.mark.parametrize(
    ("pixels", "picture", "wanted"),
    [(1024, (64, 64), (32, 32)), (240, (96, 160), (12, 20)), (63 * 32, (125, 64), (63, 32)), (7, (1, 1), (1, 7))],
)
def test_a_blocks_grid_has_the_shape_of_its_picture(pixels, picture, wanted):
    """However a model comes to its number of pixels; at worst a row of them."""
    assert grid(pixels, *picture) in (wanted, wanted[::-1] if picture[0] == picture[1] else wanted)


@given(st.integers(1, 12), st.integers(1, 12))
def test_means_near_a_pixel_end_at_the_border(height, width):
    maps = random(1, height * width, 2, seed=height)
    radius = max(1, round(NEAR * math.sqrt(height * width)))
    rows, columns = grid(height * width, height, width)
    squares = maps.unflatten(1, (rows, columns))
    wanted = [
        squares[0, max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1].mean(dim=(0, 1))
        for y in range(rows)
        for x in range(columns)
    ]
    assert close(means_near(maps, height, width)[0], torch.stack(wanted))


def test_a_hole_in_a_subjects_map_is_the_subjects():
    """And what lies apart from it is not."""
    maps = torch.full((1, 16, 16, 2), 0.1)
    maps[:, 2:8, 2:8, 0] = 0.9
    maps[:, 4, 4, 0] = 0.0
    gates = word_gates(means_near(maps.flatten(1, 2), 16, 16), 1).unflatten(1, (16, 16))[0, ..., 0]
    assert word_gates(maps.flatten(1, 2), 1).unflatten(1, (16, 16))[0, 4, 4, 0] < 0.01
    assert gates[2:8, 2:8].min() > 0.9 and gates[12:, 12:].max() < 0.1
