"""Picture files: upright, of eight bits, or an error; and the same to training, evaluation and the demo."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from mmdiff_core import MMDiffError
from mmdiff_core.data.annotated import AnnotatedScenes
from mmdiff_core.data.validate import validate
from mmdiff_core.evaluation.cases import read_picture
from mmdiff_core.photo import prepare_photos
from mmdiff_core.picture_files import open_picture, picture_size, read_pixels

TURNED = range(1, 9)  # EXIF's orientations


def drawn() -> Image.Image:
    """64 x 32; the right half is red."""
    pixels = np.full((32, 64, 3), 128, np.uint8)
    pixels[:, 32:] = (255, 0, 0)
    return Image.fromarray(pixels)


def save_turned(path: Path, orientation: int, **options) -> Path:
    """`drawn()` as a camera held in another way stores it."""
    undo = {6: 8, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = undo
    stored = ImageOps.exif_transpose(_with_exif(drawn(), exif))
    exif[ExifTags.Base.Orientation] = orientation
    stored.save(path, exif=exif, **options)
    return path


def _with_exif(picture: Image.Image, exif: Image.Exif) -> Image.Image:
    content = io.BytesIO()
    picture.save(content, "PNG", exif=exif)
    return Image.open(content)


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_turned_photo_is_upright(tmp_path, suffix, orientation):
    options = {"png": {}, "jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}[suffix]
    path = save_turned(tmp_path / f"a.{suffix}", orientation, **options)
    found = open_picture(path)
    assert found.mode == "RGBA" and found.size == picture_size(path) == (64, 32)
    difference = np.asarray(found.convert("RGB"), int) - np.asarray(drawn(), int)
    assert abs(difference).max() <= (2 if suffix == "jpg" else 0)


@pytest.mark.parametrize("orientation", TURNED)
def test_training_evaluation_and_demo_read_a_turned_photo_alike(tmp_path, orientation):
    """The mask lies on the red half of the upright picture; what training cuts out with it is red, and nothing else."""
    path = save_turned(tmp_path / "a.png", orientation)
    segments = np.zeros((32, 64), np.uint8)
    segments[:, 32:] = 1
    np.save(tmp_path / "a.npy", segments)
    annotation = {"caption": "a box", "segments": [{"id": 1, "start": 0, "end": 5}]}
    (tmp_path / "a.json").write_text(json.dumps(annotation))
    scene = AnnotatedScenes(tmp_path, 32, 28, seed=0)[0]
    masked = ((scene["image"] + 1) * 127.5)[:, scene["masks"][0] == 1]
    assert torch.equal(masked.round(), torch.tensor([255.0, 0.0, 0.0])[:, None].expand_as(masked))
    wanted = torch.from_numpy(np.array(drawn())).movedim(-1, 0) / 255
    assert torch.equal(read_picture(path), wanted)
    prepared = prepare_photos(read_pixels(path)[None], 64)[0]
    assert (prepared[:, 32, 20] * 255).tolist() == [128] * 3 and (prepared[:, 32, 44] * 255).tolist() == [255, 0, 0]


def test_a_map_of_the_stored_and_not_the_upright_size_is_broken(tmp_path):
    save_turned(tmp_path / "a.jpg", 6)
    np.save(tmp_path / "a.npy", np.ones((64, 32), np.uint8))
    (tmp_path / "a.json").write_text(json.dumps({"caption": "a", "segments": [{"id": 1, "start": 0, "end": 1}]}))
    with pytest.raises(MMDiffError, match="the map is 32 x 64 and the picture 64 x 32"):
        validate(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_become_eight(tmp_path, suffix):
    """The nearest of 8 bits, so that a grey of 8 bits written as one of 16 comes back."""
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    found = np.asarray(open_picture(tmp_path / f"a.{suffix}").convert("RGB"))
    assert np.array_equal(found, np.repeat(np.round(values / 257).astype(np.uint8)[..., None], 3, -1))
    assert read_pixels(tmp_path / f"a.{suffix}").shape == (256, 256, 4)


def test_what_is_transparent_is_black_where_opacity_has_no_place(tmp_path):
    pixels = np.full((4, 4, 4), 255, np.uint8)
    pixels[:2, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_pixels(tmp_path / "a.png")[..., 3].unique().tolist() == [0, 1]
    found = read_picture(tmp_path / "a.png")
    assert (found[:, :2] == 0).all() and (found[:, 2:] == 1).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_kind_of_picture_is_read(tmp_path, mode):
    suffix = {"CMYK": "jpg", "YCbCr": "jpg"}.get(mode, "png")
    drawn().convert(mode).save(tmp_path / f"a.{suffix}")
    found = np.asarray(open_picture(tmp_path / f"a.{suffix}"))
    assert found.shape == (32, 64, 4) and (found[..., 3] == 255).all()
    assert found[:, 40:, 0].min() > found[:, :24, 2].max() or mode in ("1", "L", "LA")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full((4, 4), 70000, np.int32), "more than 16 bits"),
        (np.full((4, 4), -1, np.int32), "more than 16 bits"),
        (np.full((4, 4), 0.5, np.float32), "fractions"),
    ],
)
def test_what_eight_bits_can_not_hold_is_refused(tmp_path, values, said):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(MMDiffError, match=f"a.tif can't be read as a picture .*{said}.*Choose a JPEG, PNG or WebP"):
        open_picture(tmp_path / "a.tif")


def test_a_file_that_is_missing(tmp_path):
    for read in (open_picture, read_pixels, picture_size):
        with pytest.raises(MMDiffError, match="b.png can't be read as a picture"):
            read(tmp_path / "b.png")


FILES = {}
for suffix in ("png", "jpeg", "webp", "tiff", "gif"):
    content = io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    drawn().save(content, suffix, **({} if suffix == "gif" else {"exif": exif}))
    FILES[suffix] = content.getvalue()


@pytest.mark.filterwarnings("ignore:::PIL")
@given(st.sampled_from(sorted(FILES)), st.integers(0, 400), st.binary(max_size=8), st.integers(0, 400))
def test_a_damaged_file_is_a_picture_or_an_error(tmp_path_factory, kind, at, other, cut):
    content = bytearray(FILES[kind])
    content[at : at + len(other)] = other
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    path.write_bytes(content[: len(content) - cut])
    for read in (open_picture, picture_size):
        try:
            read(path)
        except MMDiffError as error:
            assert str(path) in str(error)
