"""Detector and recogniser: their two files, run by insightface where it is installed, else by onnxruntime alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import MMDiffError
from ..files import refuse_impostors
from . import detector, recogniser
from .types import Detections

DETECTOR, RECOGNISER = "det_10g.onnx", "w600k_r50.onnx"
SOURCE = "https://github.com/deepinsight/insightface/releases/download/v0.7/buffalo_l.zip"
GPU, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@dataclass(frozen=True)
class FaceModels:
    """The two networks of face analysis.

    detect: a photo (H, W, 3) uint8 RGB and the side of the square it is looked at in, to Detections.
    embed: an aligned face (112, 112, 3) uint8 RGB to its vector (D_id,), of any length.
    """

    detect: Callable[[np.ndarray, int], Detections]
    embed: Callable[[np.ndarray], np.ndarray]

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
    return _found(DETECTOR, folders), _found(RECOGNISER, folders)


def _found(name: str, folders: Sequence[Path]) -> Path:
    for folder in folders:
        for path in (folder / name, folder / folder.name / name):
            if path.is_file():
                return path
    raise MMDiffError(
        f"Face analysis needs {name}, and it is not in {' or '.join(map(str, folders))}. Download {SOURCE} (for "
        f"non-commercial research only, says its licence) and unpack it into {folders[0]}."
    )


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
    return FaceModels(partial(detector.detect, detecting), partial(recogniser.embed, recognising))


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
