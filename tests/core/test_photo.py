"""Photos made ready for the vision tower, and what is no photo."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from mmdiff_core import MMDiffError, prepare_photos
from mmdiff_core.photo import CLIP_MEAN, CLIP_STD, check_photos, normalise


def white(height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.ones(1, height, width, channels)


def test_a_wide_photo_gets_black_above_and_below():
    (photo,) = prepare_photos(white(20, 40), 40)
    assert photo.shape == (3, 40, 40)
    assert (photo[:, 10:30] == 1).all() and (photo[:, :10] == 0).all() and (photo[:, 30:] == 0).all()


def test_a_tall_photo_gets_black_on_both_sides():
    (photo,) = prepare_photos(white(40, 20), 40)
    assert (photo[:, :, 10:30] == 1).all() and (photo[:, :, :10] == 0).all() and (photo[:, :, 30:] == 0).all()


@pytest.mark.parametrize("shape", [(61, 90), (90, 60), (300, 17), (9, 5), (1500, 80), (40, 1300)])
def test_resized_as_pillow_does(shape):
    """Pillow's bilinear filter, computed in whole numbers, within one level of ours."""
    torch.manual_seed(0)
    photo = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)
    left, top = (max(a - b, 0) // 2 for a, b in (shape, shape[::-1]))
    square = np.pad(photo.numpy(), ((top, top), (left, left), (0, 0)))
    wanted = np.asarray(Image.fromarray(square).resize((32, 32), Image.Resampling.BILINEAR))
    found = prepare_photos(photo.float()[None] / 255, 32)[0].movedim(0, -1) * 255
    assert np.abs(found.round().numpy() - wanted.astype(float)).max() <= 1


def test_pixels_are_rounded_to_8_bits_before_and_after():
    below, above = 0.45 / 255, 0.55 / 255
    assert (prepare_photos(torch.full((1, 4, 4, 3), above), 4) == 1 / 255).all()
    assert (prepare_photos(torch.full((1, 4, 4, 3), below), 4) == 0).all()
    row = torch.tensor([above, above, above, 0.0]).view(1, 1, 4, 1).expand(1, 4, 4, 3)
    assert (prepare_photos(row, 1) == 1 / 255).all(), "7/8 of one level, and not 0.48 of it"


def test_a_photo_of_the_right_size_stays_as_it_is():
    photo = torch.randint(0, 256, (2, 24, 24, 3)) / 255
    assert torch.equal(prepare_photos(photo, 24), photo.movedim(-1, 1))


def test_photos_of_a_batch_do_not_touch_each_other():
    photos = torch.rand(3, 50, 30, 3)
    assert torch.equal(prepare_photos(photos, 16), torch.cat([prepare_photos(photo[None], 16) for photo in photos]))


def test_values_outside_0_to_1_are_cut_off():
    photo = torch.tensor([-3.0, 0.0, 1.0, 7.5]).view(1, 2, 2, 1).expand(1, 2, 2, 3)
    assert prepare_photos(photo, 2)[0, 0].tolist() == [[0, 0], [1, 1]]


def test_what_is_transparent_becomes_black():
    photo = white(4, 4, channels=4)
    photo[:, :2, :, 3] = 0
    photo[:, 2, :, 3] = 0.4
    (prepared,) = prepare_photos(photo, 4)
    assert (prepared[:, :2] == 0).all() and (prepared[:, 2] == 102 / 255).all() and (prepared[:, 3] == 1).all()


@pytest.mark.parametrize("masks", [torch.zeros(4, 4), torch.zeros(1, 4, 4), torch.zeros(2, 4, 4)])
def test_what_is_not_masked_becomes_black(masks):
    masks[..., 1:3, 1:3] = 1
    prepared = prepare_photos(white(4, 4).repeat(2, 1, 1, 1), 4, masks)
    assert prepared.sum(dim=(-1, -2)).tolist() == [[4.0] * 3] * 2
    assert (prepared[..., 1:3, 1:3] == 1).all()


def test_a_mask_of_each_photo_is_its_own():
    masks = torch.stack([torch.ones(4, 4), torch.zeros(4, 4)])
    first, second = prepare_photos(white(4, 4).repeat(2, 1, 1, 1), 4, masks)
    assert first.min() == 1 and second.max() == 0


@pytest.mark.parametrize("channels", [3, 4])
def test_one_pixel(channels):
    prepared = prepare_photos(torch.tensor([0.2, 0.4, 0.6, 1.0])[:channels].view(1, 1, 1, channels), 16)
    assert prepared.shape == (1, 3, 16, 16)
    assert [channel.unique().tolist() for channel in prepared[0] * 255] == [[51], [102], [153]]


class Largest(TorchDispatchMode):
    """Keeps the number of elements of the largest tensor that was made."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        if isinstance(made, torch.Tensor):
            self.elements = max(self.elements, made.numel())
        return made


@pytest.mark.parametrize("shape", [(1, 20000), (6000, 1)])
def test_a_long_thin_photo_never_becomes_a_square_of_its_length(shape):
    with Largest() as largest:
        (photo,) = prepare_photos(white(*shape), 32)
    assert largest.elements < 3 * max(shape) ** 2 / 4
    assert photo.shape == (3, 32, 32) and photo.max() <= 1 / 255, "a line of one pixel all but vanishes"


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.integers(3, 4), st.integers(0, 9))
def test_any_photo_becomes_levels_of_8_bits(height, width, size, channels, seed):
    photos = torch.rand(2, height, width, channels, generator=torch.Generator().manual_seed(seed)) * 1.2 - 0.1
    prepared = prepare_photos(photos, size)
    assert prepared.shape == (2, 3, size, size)
    assert prepared.min() >= 0 and prepared.max() <= 1
    assert torch.equal(prepared, (prepared * 255).round() / 255)


@pytest.mark.parametrize(
    ("photos", "said"),
    [
        (torch.zeros(4, 4, 3), "The photos have shape (4, 4, 3); wanted is a batch of images, photos x height"),
        (torch.zeros(1, 3, 8, 8), "The photos have shape (1, 3, 8, 8)"),
        (torch.zeros(1, 4, 4, 1), "The photos have shape (1, 4, 4, 1)"),
        (torch.zeros(1, 1, 4, 4, 3), "The photos have shape (1, 1, 4, 4, 3)"),
        (torch.tensor(1.0), "The photos have shape ()"),
        (torch.zeros(0, 4, 4, 3), "The photos are empty, their shape is (0, 4, 4, 3); connect at least one photo"),
        (torch.zeros(1, 0, 4, 3), "The photos are empty"),
        (torch.zeros(1, 4, 0, 4), "The photos are empty"),
    ],
)
def test_what_is_no_photo(photos, said):
    for refuse in (check_photos, lambda photos: prepare_photos(photos, 8)):
        with pytest.raises(MMDiffError) as caught:
            refuse(photos)
        assert said in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_pixels_that_are_not_numbers(value):
    photos = torch.zeros(3, 4, 4, 3)
    photos[1, 2, 2, 0] = value
    with pytest.raises(MMDiffError, match=r"Photo 2 of 3 has pixels that are not numbers .* look at its output"):
        prepare_photos(photos, 8)


@pytest.mark.parametrize("shape", [(5, 4), (1, 4, 5), (2, 4, 4), (1, 1, 4, 4), (4,)])
def test_a_mask_of_another_size(shape):
    with pytest.raises(MMDiffError) as caught:
        prepare_photos(torch.zeros(3, 4, 4, 3), 8, torch.ones(shape))
    assert f"The mask has shape {(1, *shape) if len(shape) == 2 else shape}" in str(caught.value)
    assert "the photos (3, 4, 4, 3); wanted is one mask" in str(caught.value)


def test_a_mask_that_is_not_numbers():
    with pytest.raises(MMDiffError, match="The mask has values that are not numbers"):
        prepare_photos(white(4, 4), 8, torch.full((4, 4), float("nan")))


def test_normalised_pixels_have_clips_mean_and_deviation():
    mean, deviation = torch.tensor(CLIP_MEAN), torch.tensor(CLIP_STD)
    pixels = torch.stack([mean, mean + deviation, mean - 2 * deviation]).view(3, 3, 1, 1).expand(3, 3, 5, 7)
    for normal, value in zip(normalise(pixels), (0, 1, -2), strict=True):
        assert torch.allclose(normal, torch.full((3, 5, 7), float(value)), atol=1e-6)
    assert normalise(pixels.double()).dtype == torch.float64


def test_whole_numbers_are_refused():
    with pytest.raises(MMDiffError, match=r"torch.uint8; wanted are fractions from 0 to 1. Divide by 255"):
        prepare_photos(torch.zeros(1, 4, 4, 3, dtype=torch.uint8), 4)
