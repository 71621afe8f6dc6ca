"""The stages on models of each kind: what they hand on fits the picture, and a wrong folder is named."""

import numpy as np
import pytest
from PIL import Image
from tiny_models import make_models

from mmdiff_core.annotation.found import Found, Phrase, read_found, write_found
from mmdiff_core.annotation.stages import STAGES, Planned
from mmdiff_core.data.faces import SegmentFace
from mmdiff_core.errors import MMDiffError
from mmdiff_core.face import Detections, FaceModels

SIZE = (60, 40)
CAPTION = "a red dog and a blue box"
PHRASES = (Phrase(0, 9), Phrase(14, 24))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp("models") / "models")


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (*SIZE[::-1], 3), np.uint8))


def opened(models, name):
    return Planned(name, str(models / name)).open()


def test_a_caption_is_one_line(models, picture):
    assert isinstance(opened(models, "caption")(picture, Found()).caption, str)


def test_phrases_are_of_the_caption(models, picture):
    """Random tags: whatever they are, phrases are in order and apart."""
    found = opened(models, "words")(picture, Found(caption=CAPTION))
    last = 0
    for one in found.phrases:
        assert last <= one.start < one.end <= len(CAPTION) and CAPTION[one.start : one.end].strip()
        last = one.end


def test_boxes_lie_in_the_picture(models, picture):
    found = opened(models, "boxes")(picture, Found(caption=CAPTION, phrases=PHRASES))
    assert [(one.start, one.end) for one in found.phrases] == [(0, 9), (14, 24)]
    placed = [one for one in found.phrases if one.box]
    assert placed, "random weights are sure of something"
    for one in placed:
        left, top, right, bottom = one.box
        assert 0 <= left < right <= SIZE[0] and 0 <= top < bottom <= SIZE[1] and 0 <= one.again <= one.score <= 1


def test_the_map_is_the_pictures(models, picture):
    phrases = (PHRASES[0], PHRASES[1]._replace(box=(5.0, 5.0, 30.0, 30.0)))
    found = opened(models, "masks")(picture, Found(caption=CAPTION, phrases=phrases))
    assert found.segments.shape == SIZE[::-1] and set(np.unique(found.segments)) <= {0, 2}
    nothing = opened(models, "masks")(picture, Found(caption=CAPTION, phrases=PHRASES))
    assert not nothing.segments.any()


@pytest.mark.parametrize(
    ("name", "other", "task"),
    [
        ("caption", "masks", "image-text-to-text"),
        ("words", "boxes", "token-classification"),
        ("boxes", "caption", "zero-shot-object-detection"),
        ("masks", "words", "mask-generation"),
    ],
)
def test_a_model_of_another_kind_is_named(models, name, other, task):
    with pytest.raises(MMDiffError, match=rf"models/{other} is not a model for {task} \("):
        Planned(name, str(models / other)).open()


def test_an_empty_folder_is_named(tmp_path):
    for name in STAGES:
        with pytest.raises(MMDiffError, match=str(tmp_path)):
            Planned(name, str(tmp_path)).open()


def test_faces_belong_to_what_they_lie_in(picture):
    """Three faces: in the first subject, too small to tell, and outside of all."""
    from mmdiff_core.annotation.stages.faces import Faces

    size, segments = (300, 200), np.zeros((200, 300), np.uint8)
    segments[:, :100], segments[:, 100:150] = 1, 2
    boxes = np.array([[20, 20, 80, 80], [110, 20, 130, 40], [200, 20, 290, 110]], np.float32)
    shape = np.array([[-1, -1], [1, -1], [0, 0], [-1, 1], [1, 1]], np.float32)
    points = np.stack([(box[:2] + box[2:]) / 2 + shape * (box[2] - box[0]) / 4 for box in boxes])
    models = FaceModels(lambda photo, side: Detections(boxes, np.ones(3), points), lambda crop: crop.mean((0, 1)) + 1)
    found = Faces(None, models)(picture.resize(size), Found(caption=CAPTION, phrases=PHRASES, segments=segments))
    assert list(found.faces) == [1] and found.recogniser == "buffalo_l"
    assert found.faces[1].vector.shape == (3,) and found.faces[1].crop.shape == (224, 224, 3)


def test_what_was_found_is_kept_as_it_is(tmp_path):
    import torch

    phrases = (Phrase(0, 9, (1.5, 2.0, 3.0, 4.0), 0.9, 0.1, 0.25), Phrase(14, 24))
    faces = {1: SegmentFace(torch.rand(5), torch.ones(4, 4, 3, dtype=torch.uint8))}
    segments = np.arange(24, dtype=np.uint8).reshape(4, 6) % 3
    whole = Found((("picture", "1 2"),), (6, 4), "ff", "", CAPTION, phrases, segments, faces, "dlib")
    write_found(tmp_path / "a.safetensors", whole)
    again = read_found(tmp_path / "a.safetensors", whole=True)
    assert np.array_equal(again.segments, segments) and torch.equal(again.faces[1].vector, faces[1].vector)
    assert {**vars(again), "segments": 0, "faces": 0} == {**vars(whole), "segments": 0, "faces": 0}
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:90])
    assert read_found(tmp_path / "a.safetensors") == Found() == read_found(tmp_path / "none.safetensors")
