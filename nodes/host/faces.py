"""The face models in the host's folders, opened once."""

from __future__ import annotations

import functools
from pathlib import Path

from ...mmdiff_core.face import FaceModels, find_dlib_files, find_files
from . import folders


def face_models(recogniser: str = "buffalo_l") -> FaceModels:
    """Detector and recogniser, kept until a file has another time of change. Raises as `FaceModels` does."""
    return _models(recogniser, *((file, file.stat().st_mtime_ns) for file in face_files(recogniser)))


def face_files(recogniser: str) -> tuple[Path, Path]:
    """Both files of a recogniser. Raises MMDiffError where one is missing."""
    if recogniser == "dlib":
        return find_dlib_files(folders.dlib_folders())
    return find_files(folders.face_folders())


@functools.lru_cache(maxsize=2)
def _models(recogniser: str, first: tuple[Path, int], second: tuple[Path, int]) -> FaceModels:
    return (FaceModels.of_dlib if recogniser == "dlib" else FaceModels.load)(first[0], second[0])
