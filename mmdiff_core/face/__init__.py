"""Faces: found, aligned and recognised, with insightface or with onnxruntime alone."""

from .align import norm_crop
from .analysis import CHOICES, analyze, find_faces
from .models import RECOGNISERS, FaceModels, find_dlib_files, find_files
from .types import Detections, Face, Found

__all__ = [
    "CHOICES",
    "RECOGNISERS",
    "Detections",
    "Face",
    "FaceModels",
    "Found",
    "analyze",
    "find_dlib_files",
    "find_faces",
    "find_files",
    "norm_crop",
]
