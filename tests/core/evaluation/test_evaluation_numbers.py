"""The arithmetic below the measures: intervals, structural similarity, edges, registration, palettes, localisation."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_world import SHAPES, shape

from mmdiff_core.evaluation.bootstrap import difference, interval
from mmdiff_core.evaluation.world.fidelity import edge_f1, fidelity, ssim
from mmdiff_core.evaluation.world.nets import CROP, PICTURE, About, Box, MetricNets, cropped, overlap
from mmdiff_core.evaluation.world.palette import in_colours_of


def sprite(name: str, family: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.asarray(shape(name, family), np.float32) / 255).movedim(-1, 0)


def on_canvas(drawing, top, left, size, side=64):
    """A drawing on a plain grey gradient."""
    picture = torch.linspace(0.3, 0.6, side).expand(3, side, side).clone()
    small = torch.nn.functional.interpolate(drawing[None], (size, size), mode="bilinear", antialias=True)[0]
    window = picture[:, top : top + size, left : left + size]
    window.copy_(window * (1 - small[3]) + small[:3] * small[3])
    return picture


def samples(random, identities=40, each=6):
    """Pictures of one identity share most of their luck. True mean 0."""
    luck = random.normal(0, 1, identities)
    values = {f"{i}/{k}": luck[i] + random.normal(0, 0.3) for i in range(identities) for k in range(each)}
    return values, {case: case.split("/")[0] for case in values}


def test_intervals_cover_the_truth_as_often_as_they_say():
    random = np.random.default_rng(0)
    found = [interval(*samples(random)) for _ in range(150)]
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.88 <= covered <= 0.99
    values, _ = samples(random)
    by_picture = interval(values, {case: case for case in values})
    assert by_picture.high - by_picture.low < (found[0].high - found[0].low) / 1.5, "identities, not pictures, vary"


def test_intervals_do_not_depend_on_order_and_need_two_identities():
    values, groups = samples(np.random.default_rng(1))
    assert interval(values, groups) == interval(dict(reversed(values.items())), groups)
    alone = interval({"a": 1.0, "b": 3.0}, {"a": "x", "b": "x"})
    assert alone.mean == 2 and alone.low is None and alone.groups == 1 and alone.pictures == 2


def test_paired_differences_see_what_means_alone_do_not():
    values, groups = samples(np.random.default_rng(2))
    better = {case: value + 0.1 for case, value in values.items() if case != "0/0"}
    found = difference(values, better, groups)
    assert found.low > 0.09 and found.high < 0.11 and found.pictures == len(values) - 1
    assert interval(values, groups).low < interval(better, groups).low < interval(values, groups).high


def test_a_picture_is_like_itself():
    picture, weight = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.ones(64, 64)
    assert ssim(picture, picture, weight) == pytest.approx(1, abs=1e-5)
    assert edge_f1(picture, picture, weight) == 1
    assert ssim(picture, 1 - picture, weight) < 0 and ssim(picture, picture * 0.5 + 0.25, weight) < 0.9


@pytest.mark.parametrize("top,left,size", [(3, 5, 24), (20, 17, 33), (10, 12, 45)])
def test_a_drawing_is_found_where_it_is(top, left, size):
    for name in SHAPES:
        found = fidelity(on_canvas(sprite(name, 1), top, left, size), sprite(name, 1))
        x, y = found.box[0] + found.box[2] / 2, found.box[1] + found.box[3] / 2
        assert abs(x * 64 - left - size / 2) < 3 and abs(y * 64 - top - size / 2) < 3, (name, found)
        assert found.ssim > 0.8 and found.edges > 0.8, (name, found)


def test_another_drawing_fits_worse():
    for name, other in zip(SHAPES, [*SHAPES[1:], SHAPES[0]], strict=True):
        picture = on_canvas(sprite(name), 12, 14, 36)
        right, wrong = fidelity(picture, sprite(name)), fidelity(picture, sprite(other, 2))
        assert right.ssim > wrong.ssim + 0.2 and right.edges > wrong.edges, (name, other)


def test_a_mirrored_and_tilted_drawing_is_still_itself():
    tilted = (
        shape("cross", 2).transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(7, Image.Resampling.BICUBIC, expand=True)
    )
    drawing = torch.from_numpy(np.asarray(tilted, np.float32) / 255).movedim(-1, 0)
    found = fidelity(on_canvas(drawing, 10, 10, 44), sprite("cross", 2))
    assert found.ssim > 0.91 and found.edges > 0.94, "upright alone fits worse"


def test_a_decoy_has_the_other_palette_and_its_own_shape():
    decoy = in_colours_of(sprite("cross", 1), sprite("disc", 3))
    assert torch.equal(decoy[3], sprite("cross", 1)[3])

    def mean(drawing):
        return (drawing[:3] * drawing[3:]).sum((1, 2)) / drawing[3].sum()

    assert torch.allclose(mean(decoy), mean(sprite("disc", 3)), atol=0.05)
    assert not torch.allclose(mean(sprite("cross", 1)), mean(sprite("disc", 3)), atol=0.2)
    assert torch.allclose(in_colours_of(decoy, decoy), decoy, atol=1e-2)


def test_the_surest_box_is_kept_and_doubles_are_not():
    nets = MetricNets(About(["a"], ["b"], [], "", 0, 0))
    logits, boxes = torch.full((1, 16, 16), -9.0), torch.full((1, 4, 16, 16), 0.5)
    boxes[:, 2:] = 0.3
    nets.where.forward = lambda pictures: (logits, boxes)
    assert len(nets.find(torch.zeros(1, 3, PICTURE, PICTURE))[0]) == 1, "the surest, however faint"
    logits[0, 4, 4], logits[0, 4, 6], logits[0, 12, 12] = 3, 2, 1
    first, second = nets.find(torch.zeros(1, 3, PICTURE, PICTURE))[0]
    assert (first.x, first.y) == (4.5 / 16, 4.5 / 16) and (second.x, second.y) == (12.5 / 16, 12.5 / 16)
    assert overlap(first, second) == 0 and overlap(first, Box(*first[:4], 0)) == pytest.approx(1)


def test_crops_show_what_was_asked_for():
    picture = torch.zeros(1, 3, 64, 64)
    picture[:, 0, 16:48, 32:64] = 1
    assert cropped(picture, [(0.75, 0.5, 0.5)])[0, 0].mean() > 0.97
    assert cropped(picture, [(0.25, 0.5, 0.5)])[0, 0].mean() < 0.03
    beyond = cropped(picture, [(1.0, 0.5, 0.5)])[0, 0]
    assert beyond[:, CROP // 2 + 1 :].max() == 0, "black beyond the edge"
