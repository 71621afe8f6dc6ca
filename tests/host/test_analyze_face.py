"""Analyze Face through the host, with the recorded made-up networks in place of insightface's."""

from pathlib import Path

import comfy.model_management
import folder_paths
import numpy as np
import pytest
import torch
from PIL import Image

RECORDED = np.load(Path(__file__).parents[1] / "data" / "face_reference.npz")
PHOTOS = torch.from_numpy(np.stack([RECORDED["photo"]] * 2)).float() / 255


@pytest.fixture
def analyze(pack, tmp_path, monkeypatch):
    folder = tmp_path / "models" / "buffalo_l"
    folder.mkdir(parents=True)
    for name in ("det_10g", "w600k_r50"):
        (folder / f"{name}.onnx").write_bytes(RECORDED[name].tobytes())
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "insightface", ([str(tmp_path)], set()))
    return pack["MMDiffAnalyzeFace"].execute


def test_faces_and_a_numbered_preview(analyze):
    output = analyze(image=PHOTOS, choice="index", index=1)
    [face] = output.args
    assert face.embeds.shape == (2, 16) and face.crops.shape == (2, 224, 224, 3)
    previews = output.ui.as_dict()["images"]
    assert len(previews) == 2
    preview = np.asarray(Image.open(Path(folder_paths.get_temp_directory()) / previews[0]["filename"]).convert("RGB"))
    assert preview.shape == RECORDED["photo"].shape
    for colour in ((60, 220, 90), (255, 170, 0)):  # the chosen face, the others
        assert (preview == colour).all(axis=-1).any()


def test_a_face_by_its_number_in_the_preview(analyze):
    """The preview counts from 1; for the index of older graphs from 0."""
    by_number = analyze(image=PHOTOS, choice="number", index=0, number=2)
    by_index = analyze(image=PHOTOS, choice="index", index=1)
    assert torch.equal(by_number.args[0].embeds, by_index.args[0].embeds)
    first, second = (
        Image.open(Path(folder_paths.get_temp_directory()) / output.ui.as_dict()["images"][0]["filename"])
        for output in (by_number, by_index)
    )
    assert np.asarray(first).shape == np.asarray(second).shape and (np.asarray(first) != np.asarray(second)).any()


def test_missing_models_are_named(analyze, tmp_path):
    (tmp_path / "models" / "buffalo_l" / "det_10g.onnx").unlink()
    with pytest.raises(ValueError, match="det_10g.onnx") as error:
        analyze(image=PHOTOS, choice="largest", index=0)
    assert str(tmp_path) in str(error.value)


def test_cancel_stops_it(analyze):
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        analyze(image=PHOTOS, choice="largest", index=0)


def test_dlibs_files_are_looked_for_in_a_folder_of_their_own(analyze, tmp_path, monkeypatch):
    """Where the choice or the checkpoint says so."""
    from types import SimpleNamespace

    from mmdiff_core import Spec

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "dlib", ([str(tmp_path / "dlib")], set()))
    trained = SimpleNamespace(core=SimpleNamespace(spec=Spec(identity="face", recogniser="dlib")))
    for inputs in ({"recogniser": "dlib"}, {"mmdiff": trained}, {"mmdiff": trained, "recogniser": "auto"}):
        with pytest.raises(ValueError, match="dlib_face_recognition_resnet_model_v1.dat.*dlib-models") as error:
            analyze(image=PHOTOS, choice="largest", index=0, **inputs)
        assert str(tmp_path / "dlib") in str(error.value)
    assert analyze(image=PHOTOS, choice="largest", index=0, mmdiff=trained, recogniser="buffalo_l").args
