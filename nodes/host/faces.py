"""The face models in the host's folders, opened once."""

from __future__ import annotations

import functools
from pathlib import Path

from ...mmdiff_core.face import FaceModels, find_files
from . import folders


def face_models() -> FaceModels:
    """Detector and recogniser, kept until a file has another time of change. Raises as `FaceModels.load` does."""
    return _models(*((file, file.stat().st_mtime_ns) for file in find_files(folders.face_folders())))


@functools.lru_cache(maxsize=1)
def _models(detector: tuple[Path, int], recogniser: tuple[Path, int]) -> FaceModels:
    return FaceModels.load(detector[0], recogniser[0])
