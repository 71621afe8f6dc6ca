"""What of a photo is the subject: masks as people have them, transparency, plain grounds."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mmdiff_core import MMDiffError, prepare_photos
from mmdiff_core.cutout import MARGIN, plain_ground, references
from mmdiff_core.demo import SUBJECTS

SIZE = 40
TURNED = "The mask was white around the subject, not on it, so it was taken the other way round."
CUT_OUT = "The subject was cut out of its plain background."
GROUNDS = {"white": "#ffffff", "grey": "#808080", "sky": "#96c8f0", "grass": "#28b450", "wood": "#785028"}
NAMES = [path.stem for path in sorted(SUBJECTS.glob("*.png"))]


def busy(height: int = 60, width: int = 90) -> torch.Tensor:
    """(1, H, W, 3): noise, no ground to be found."""
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(0))


def square(height: int = 60, width: int = 90) -> torch.Tensor:
    """(1, H, W) mask of a square of 20 pixels."""
    mask = torch.zeros(1, height, width)
    mask[:, 10:30, 50:70] = 1
    return mask


def test_of_a_whole_photo_the_middle_alone_and_of_a_cut_out_all():
    """As the IP-Adapter family sees photos; what was cut out would lose its ends."""
    whole = references([busy()], None, SIZE, crop=False, square="middle").photos
    assert torch.equal(whole, prepare_photos(busy()[:, :, 15:75], SIZE))
    tall = references([busy(90, 60)], None, SIZE, crop=False, square="middle").photos
    assert torch.equal(tall, prepare_photos(busy(90, 60)[:, 15:75], SIZE))
    long = torch.zeros(1, 60, 90)
    long[:, 20:40] = 1
    assert torch.equal(
        references([busy()], long, SIZE, crop=True, square="middle").photos,
        references([busy()], long, SIZE, crop=True).photos,
    )


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("empty", [torch.zeros(1, 64, 64), torch.zeros(64, 64), torch.zeros(1, 60, 90)])
def test_a_mask_that_marks_nothing_is_none(crop, empty):
    found = references([busy()], empty, SIZE, crop)
    assert torch.equal(found.photos, prepare_photos(busy(), SIZE)) and found.remarks == ()


@pytest.mark.parametrize("crop", [False, True])
def test_a_mask_of_the_other_sign_is_turned_and_said(crop):
    right, turned = (references([busy()], mask, SIZE, crop) for mask in (square(), 1 - square()))
    assert torch.equal(right.photos, turned.photos)
    assert (right.remarks, turned.remarks) == ((), (TURNED,))


def test_a_mask_of_a_subject_that_fills_the_photo_is_not_turned():
    mask = torch.ones(1, 60, 90)
    mask[:, :9, :9] = 0
    whole = references([busy()], torch.ones(1, 60, 90), SIZE, crop=False)
    assert references([busy()], mask, SIZE, crop=False).remarks == whole.remarks == ()


def test_what_is_masked_is_cropped_to_with_a_margin():
    (photo,) = references([torch.ones(1, 60, 90, 3)], square(), SIZE, crop=True).photos
    share = photo[0].mean()
    wanted = 1 / (1 + 2 * MARGIN) ** 2
    assert abs(share - wanted) < 0.02, "the subject fills its photo but for the margin"


def test_a_transparent_picture_is_cropped_to_what_shows():
    cut = torch.cat([busy(), square()[..., None]], dim=-1)
    shown = references([cut], None, SIZE, crop=True)
    assert torch.equal(shown.photos, references([busy()], square(), SIZE, crop=True).photos)
    assert shown.remarks == ()


def test_whole_photos_are_as_they_were():
    for mask in (None, square()):
        found = references([busy()], mask, SIZE, crop=False)
        assert torch.equal(found.photos, prepare_photos(busy(), SIZE, mask))


def test_photos_of_several_sizes():
    sizes = [(60, 90), (31, 17), (200, 50)]
    found = references([busy(*size) for size in sizes], None, SIZE, crop=True)
    assert torch.equal(found.photos, torch.cat([prepare_photos(busy(*size), SIZE) for size in sizes]))


def test_a_mask_is_the_first_photos():
    found = references([busy(), busy(60, 90)], square(), SIZE, crop=True).photos
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[1], prepare_photos(busy(), SIZE)[0])


@pytest.mark.parametrize("mask", [torch.ones(1, 64, 64), torch.ones(2, 60, 90), torch.full((1, 60, 90), float("nan"))])
def test_a_mask_that_does_not_fit_is_refused(mask):
    with pytest.raises(MMDiffError, match="The mask has"):
        references([busy()], mask, SIZE, crop=True)


def photographed(name: str, ground: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A bundled subject on a plain ground as a JPEG, (1, H, W, 3), and its true mask (H, W)."""
    drawing = Image.open(SUBJECTS / f"{name}.png").convert("RGBA")
    picture, mask = Image.new("RGB", (480, 360), ground), Image.new("L", (480, 360))
    place = ((480 - drawing.width) // 2, (360 - drawing.height) // 3)
    picture.paste(drawing, place, drawing)
    mask.paste(drawing.getchannel("A"), place)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    photo = torch.from_numpy(np.asarray(Image.open(file).convert("RGB"), np.float32) / 255)
    return photo[None], torch.from_numpy(np.asarray(mask, np.float32) / 255)


@pytest.mark.parametrize("ground", GROUNDS.values(), ids=GROUNDS)
def test_a_subject_is_cut_out_of_a_plain_ground(ground):
    """Shared over joint area of found and true subject. White popcorn on white is the hardest."""
    overlaps = {}
    for name in NAMES:
        photo, mask = photographed(name, ground)
        subject, true = 1 - plain_ground(photo[0]) > 0.5, mask > 0.5
        overlaps[name] = float((subject & true).sum() / (subject | true).sum())
        assert references([photo], None, SIZE, crop=True).remarks == (CUT_OUT,)
    print({name: round(overlap, 3) for name, overlap in overlaps.items()})
    assert min(overlaps.values()) > 0.75 and sum(overlaps.values()) / len(overlaps) > 0.9


def test_a_like_colour_inside_of_the_subject_stays():
    photo = torch.ones(100, 100, 3)
    photo[20:80, 20:80] = 0.3
    photo[40:60, 40:60] = 1
    ground = plain_ground(photo)
    assert ground[50, 50] == 0 and ground[5, 5] == 1


@pytest.mark.parametrize("photo", [torch.full((50, 70, 3), 0.4), busy()[0]], ids=["one colour", "busy"])
def test_no_plain_ground(photo):
    assert plain_ground(photo) is None
