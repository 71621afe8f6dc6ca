"""Face analysis against what insightface and OpenCV themselves found (tests/data/face_reference.py recorded it)."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdiff_core import MMDiffError
from mmdiff_core.face import CHOICES, Detections, FaceModels, analyze, find_faces, find_files, norm_crop
from mmdiff_core.face.detector import decode, letterbox, suppress

RECORDED = np.load(Path(__file__).parents[1] / "data" / "face_reference.npz")
PHOTO = RECORDED["photo"]
KEYPOINTS = np.array([[40, 40], [60, 40], [50, 52], [42, 62], [58, 62]], np.float32)
LEVEL = 1  # of 255: another LAPACK may turn a face by a hair
PIXELS = 1e-3


def folder_with_models(root: Path) -> Path:
    folder = root / "models" / "buffalo_l"
    folder.mkdir(parents=True)
    for name in ("det_10g", "w600k_r50"):
        (folder / f"{name}.onnx").write_bytes(RECORDED[name].tobytes())
    return folder


def in_levels(crop: torch.Tensor) -> np.ndarray:
    return (crop * 255).round().numpy().astype(int)


def batch(*photos: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(photos)).float() / 255


def faces(*boxes: tuple[float, float, float, float]) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.6, len(boxes), dtype=np.float32),
        np.stack([KEYPOINTS + number for number in range(len(boxes))]) if boxes else np.empty((0, 5, 2), np.float32),
    )


def models_that_find(found: Detections) -> FaceModels:
    return FaceModels(lambda photo, size: found, lambda crop: crop[:2, :2].ravel().astype(np.float32) + 1)


SEVERAL = faces((50, 10, 70, 40), (0, 0, 60, 60), (90, 10, 118, 44))  # left to right: 1, 0, 2


@pytest.mark.parametrize("name", [name for name in RECORDED.files if name.startswith("crop.") and name[5].isdigit()])
def test_crop_is_insightface_s(name):
    _, size, row = name.split(".")
    crop = norm_crop(PHOTO, RECORDED["crop.keypoints"][int(row)], int(size))
    assert crop.dtype == np.uint8
    assert abs(crop.astype(int) - RECORDED[name]).max() <= LEVEL


def test_letterbox_is_insightface_s():
    canvas, scale = letterbox(PHOTO, 128)
    assert abs(canvas.astype(int) - RECORDED["tiny.canvas"]).max() <= LEVEL
    assert scale == 93 / 88


def test_decoding_is_insightface_s():
    scale = letterbox(PHOTO, 128)[1]
    found = decode([RECORDED[f"tiny.output{number}"] for number in range(9)], 128)
    kept = suppress(found.boxes / scale, found.scores)
    assert len(kept) == len(RECORDED["tiny.boxes"])
    assert abs(found.boxes[kept] / scale - RECORDED["tiny.boxes"]).max() <= PIXELS
    assert abs(found.keypoints[kept] / scale - RECORDED["tiny.keypoints"]).max() <= PIXELS
    assert np.array_equal(found.scores[kept], RECORDED["tiny.scores"])


@pytest.mark.parametrize(("name", "size"), [("reference", 640), ("smaller", 448), ("tiny", 128)])
def test_the_networks_find_what_insightface_finds(tmp_path, name, size):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the networks were NOT run")
    models = FaceModels.load(*find_files([folder_with_models(tmp_path)]))
    found = models.detect(PHOTO, size)
    assert len(found.boxes) == len(RECORDED[f"{name}.boxes"])
    assert abs(found.boxes - RECORDED[f"{name}.boxes"]).max() <= PIXELS
    assert abs(found.keypoints - RECORDED[f"{name}.keypoints"]).max() <= PIXELS
    assert abs(found.scores - RECORDED[f"{name}.scores"]).max() <= 1e-5
    for keypoints, wanted in zip(found.keypoints, RECORDED[f"{name}.embeds"], strict=True):
        vector = models.embed(norm_crop(PHOTO, keypoints, 112))
        assert abs(vector / np.linalg.norm(vector) - wanted).max() <= 1e-3


def test_analysis_from_files(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the networks were NOT run")
    models = FaceModels.load(*find_files([folder_with_models(tmp_path)]))
    face, (found, again) = analyze(batch(PHOTO, PHOTO), models, "largest", 0)
    assert face.embeds.shape == (2, 16) and face.embeds.dtype == torch.float32
    assert face.crops.shape == (2, 224, 224, 3) and face.crops.min() >= 0 and face.crops.max() <= 1
    assert np.allclose(face.embeds.norm(dim=-1), 1)
    boxes = RECORDED["reference.boxes"]
    largest = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).argmax()
    assert np.allclose(found.boxes[found.chosen], boxes[largest], atol=PIXELS)
    assert np.allclose(face.embeds[0], RECORDED["reference.embeds"][largest], atol=1e-3)
    assert torch.equal(face.embeds[0], face.embeds[1]) and found.chosen == again.chosen


@pytest.mark.parametrize(
    ("choice", "index", "place", "number"),
    [
        ("largest", 5, 0, 1),
        ("leftmost", 5, 0, 1),
        ("index", 0, 0, 1),
        ("index", 1, 1, 0),
        ("index", 2, 2, 2),
        ("number", 1, 0, 1),
        ("number", 3, 2, 2),
    ],
)
def test_choice(choice, index, place, number):
    face, [found] = analyze(batch(PHOTO), models_that_find(SEVERAL), choice, index)
    assert found.chosen == place and len(found.boxes) == 3
    assert (np.diff(found.boxes[:, 0] + found.boxes[:, 2]) > 0).all()
    assert np.array_equal(in_levels(face.crops[0]), norm_crop(PHOTO, KEYPOINTS + number, 224))


@pytest.mark.parametrize(("choice", "index", "first"), [("index", 3, 0), ("number", 4, 1), ("number", 0, 1)])
def test_a_face_that_is_not_there(choice, index, first):
    found = f"face {index} was asked for. Faces found: 3, numbered from the left, the first is {first}. .*as {choice}"
    with pytest.raises(MMDiffError, match=f"Photo 1 of 1: {found}"):
        analyze(batch(PHOTO), models_that_find(SEVERAL), choice, index)


def test_photo_without_a_face_is_named():
    def detect(photo, size):
        return faces((0, 0, 9, 9)) if photo.any() else faces()

    models = FaceModels(detect, models_that_find(SEVERAL).embed)
    with pytest.raises(MMDiffError, match="Photo 2 of 3.*no face was found"):
        analyze(batch(PHOTO, PHOTO * 0, PHOTO), models, "largest", 0)


def test_smaller_squares_and_then_a_border_are_tried():
    looks = []

    def detect(photo, size):
        looks.append((photo.shape, size))
        return faces((50, 50, 60, 60)) if photo.shape != PHOTO.shape else faces()

    found = find_faces(PHOTO, FaceModels(detect, models_that_find(SEVERAL).embed))
    height, width = PHOTO.shape[:2]
    assert looks[:-1] == [(PHOTO.shape, size) for size in (640, 576, 512, 448, 384, 320, 256)]
    assert looks[-1] == ((2 * height, width + height, 3), 640)
    assert np.array_equal(found.boxes, [[50 - height // 2, 50 - height // 2, 60 - height // 2, 60 - height // 2]])
    assert np.array_equal(found.keypoints[0], KEYPOINTS - height // 2)


def test_the_first_look_that_finds_a_face_is_the_last():
    sizes = []

    def detect(photo, size):
        sizes.append(size)
        return faces((0, 0, 9, 9)) if size <= 512 else faces()

    find_faces(PHOTO, FaceModels(detect, models_that_find(SEVERAL).embed))
    assert sizes == [640, 576, 512]


def test_transparent_is_black():
    opacity = np.zeros((*PHOTO.shape[:2], 1), np.uint8)
    opacity[:, 50:] = 255
    seen, _ = analyze(batch(np.concatenate([PHOTO, opacity], -1)), models_that_find(SEVERAL), "leftmost", 0)
    wanted, _ = analyze(batch(PHOTO * (opacity > 0)), models_that_find(SEVERAL), "leftmost", 0)
    assert torch.equal(seen.crops, wanted.crops)


def test_progress_is_told_before_every_photo():
    told = []
    analyze(batch(PHOTO, PHOTO), models_that_find(SEVERAL), "largest", 0, told.append)
    assert told == [0, 1]


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 1, 9000, 3), (1, 9000, 1, 4), (1, 2, 600, 3)])
def test_photos_without_room_for_a_face(tmp_path, shape):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the networks were NOT run")
    models = FaceModels.load(*find_files([folder_with_models(tmp_path)]))
    with pytest.raises(MMDiffError, match="Photo 1 of 1.*no face"):
        analyze(torch.zeros(shape), models, "largest", 0)


@pytest.mark.parametrize("photos", [torch.full((1, 8, 8, 3), torch.nan), torch.zeros(8, 8, 3), torch.zeros(0, 8, 8, 3)])
def test_what_is_not_a_photo(photos):
    with pytest.raises(MMDiffError, match="[Pp]hoto"):
        analyze(photos, models_that_find(SEVERAL), CHOICES[0], 0)


def test_keypoints_outside_the_photo():
    assert not norm_crop(PHOTO, KEYPOINTS + 5000, 224).any()


def test_archive_unpacked_a_folder_too_deep(tmp_path):
    deep = folder_with_models(tmp_path).rename(tmp_path / "moved")
    (tmp_path / "models" / "buffalo_l").mkdir()
    deep.rename(tmp_path / "models" / "buffalo_l" / "buffalo_l")
    detector, recogniser = find_files([tmp_path / "elsewhere", tmp_path / "models" / "buffalo_l"])
    assert detector.is_file() and recogniser.is_file()


def test_missing_file_is_named_with_the_folders(tmp_path):
    folder = folder_with_models(tmp_path)
    (folder / "w600k_r50.onnx").unlink()
    with pytest.raises(MMDiffError) as error:
        find_files([tmp_path / "elsewhere", folder])
    assert all(part in str(error.value) for part in ("w600k_r50.onnx", str(folder), "elsewhere", "buffalo_l.zip"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (RECORDED["det_10g"].tobytes()[:5000], "cut off"),
        (b"PK\x03\x04 an archive", "cut off"),
    ],
)
def test_file_that_is_not_a_network_is_named(tmp_path, content, said):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the networks were NOT run")
    files = find_files([folder_with_models(tmp_path)])
    files[0].write_bytes(content)
    with pytest.raises(MMDiffError, match=said) as error:
        FaceModels.load(*files)
    assert "det_10g.onnx" in str(error.value)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    for name in ("insightface", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MMDiffError, match="pip install onnxruntime"):
        FaceModels.load(*find_files([folder_with_models(tmp_path)]))
