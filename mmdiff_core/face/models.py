"""Detector and recogniser: their two files, run by insightface where it is installed, else by onnxruntime alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import MMDiffError
from ..files import refuse_impostors
from . import detector, dlib_models
from . import recogniser as arcface
from .types import Detections

DETECTOR, RECOGNISER = "det_10g.onnx", "w600k_r50.onnx"
SOURCE = "https://github.com/deepinsight/insightface/releases/download/v0.7/buffalo_l.zip"
GPU, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class Recogniser(NamedTuple):
    """width: of its vectors. alike: the cosine of two photos of one person, from which they are taken for one."""

    width: int
    alike: float


RECOGNISERS = {"buffalo_l": Recogniser(512, 0.45), "dlib": Recogniser(128, 0.91)}
"""By the names that specs have. Vectors of dlib all point one way, so those of strangers are alike too."""


@dataclass(frozen=True)
class FaceModels:
    """The two networks of face analysis.

    detect: a photo (H, W, 3) uint8 RGB and the side of the square it is looked at in, to Detections.
    embed: an aligned face (crop, crop, 3) uint8 RGB to its vector (D_id,), of any length.
    recogniser: its name in RECOGNISERS, as a spec has it.
    """

    detect: Callable[[np.ndarray, int], Detections]
    embed: Callable[[np.ndarray], np.ndarray]
    recogniser: str = "buffalo_l"
    crop: int = arcface.CROP

    @classmethod
    def of_folder(cls, folder: Path) -> FaceModels:
        """Those in a folder, buffalo_l's or dlib's, on the GPU if there is one. Raises MMDiffError like those."""
        if (folder / dlib_models.RECOGNISER).is_file():
            return cls.of_dlib(*find_dlib_files([folder]))
        return cls.load(*find_files([folder]), on_gpu=True)

    @classmethod
    def of_dlib(cls, recogniser_file: Path, marks_file: Path) -> FaceModels:
        """dlib's. Raises MMDiffError where a file is not what its name says, or the package is missing."""
        models = dlib_models.DlibModels(recogniser_file, marks_file)
        return cls(models.detect, models.embed, "dlib", dlib_models.CROP)

    @classmethod
    def load(cls, detector_file: Path, recogniser_file: Path, on_gpu: bool = False) -> FaceModels:
        """Open both files. on_gpu: run them there if there is one; not where its memory is for making pictures.

        Raises MMDiffError where one is not a network, or the packages to run them are missing."""
        for file in (detector_file, recogniser_file):
            refuse_impostors(file)
        try:
            from insightface import model_zoo
        except Exception:  # it is often installed and broken (built for another numpy); the other way needs none of it
            return _with_onnxruntime(detector_file, recogniser_file, on_gpu)
        return _with_insightface(model_zoo.get_model, detector_file, recogniser_file, on_gpu)


def find_files(folders: Sequence[Path]) -> tuple[Path, Path]:
    """Detector and recogniser in the first folder that has them, also where the archive was unpacked a folder deeper.

    Raises MMDiffError naming the file, the folders searched, and where to get it.
    """
    how = f"Download {SOURCE} (for non-commercial research only, says its licence) and unpack it into {folders[0]}."
    return _found(DETECTOR, folders, how), _found(RECOGNISER, folders, how)


def find_dlib_files(folders: Sequence[Path]) -> tuple[Path, Path]:
    """dlib's recogniser and its marks in the first folder that has them. Raises MMDiffError as `find_files`."""
    how = f"Download it from {dlib_models.SOURCE} (CC0) and unpack it into {folders[0]}."
    return _found(dlib_models.RECOGNISER, folders, how), _found(dlib_models.MARKS, folders, how)


def _found(name: str, folders: Sequence[Path], how: str) -> Path:
    for folder in folders:
        for path in (folder / name, folder / folder.name / name):
            if path.is_file():
                return path
    raise MMDiffError(f"Face analysis needs {name}, and it is not in {' or '.join(map(str, folders))}. {how}")


def _with_onnxruntime(detector_file: Path, recogniser_file: Path, on_gpu: bool) -> FaceModels:
    try:
        from onnxruntime import InferenceSession
    except ImportError as error:
        raise MMDiffError(
            f"Face analysis needs the package onnxruntime, and it can't be imported ({error}). Run `pip install "
            "onnxruntime` with the Python that runs this program, and start it again."
        ) from error
    detecting, recognising = (
        _opened(partial(InferenceSession, providers=_providers(on_gpu)), file)
        for file in (detector_file, recogniser_file)
    )
    return FaceModels(partial(detector.detect, detecting), partial(arcface.embed, recognising))


def _providers(on_gpu: bool) -> list[str]:
    import onnxruntime

    return [GPU, CPU] if on_gpu and GPU in onnxruntime.get_available_providers() else [CPU]


def _with_insightface(get_model: Callable, detector_file: Path, recogniser_file: Path, on_gpu: bool) -> FaceModels:
    # A file opened by its path: FaceAnalysis would also open the three other networks of the folder, and download all
    # of them to a folder that it does not find.
    detecting, recognising = (
        _opened(partial(get_model, providers=_providers(on_gpu)), file) for file in (detector_file, recogniser_file)
    )
    detecting.prepare(ctx_id=-1, det_thresh=detector.THRESHOLD, nms_thresh=detector.OVERLAP)

    def detect(photo: np.ndarray, size: int) -> Detections:
        boxes, keypoints = detecting.detect(photo[..., ::-1], input_size=(size, size))
        return Detections(boxes[:, :4], boxes[:, 4], keypoints)

    return FaceModels(detect, lambda crop: recognising.get_feat(crop[..., ::-1])[0])


def _opened(open_file: Callable[[str], object], file: Path) -> object:
    try:
        return open_file(str(file))
    except Exception as error:  # onnxruntime has a class of its own for every way in which a file can be wrong
        raise MMDiffError(
            f"{file} is not a whole ONNX network ({type(error).__name__}). Its download was probably cut off; "
            f"download it again: {SOURCE}."
        ) from error
