"""Faces: found, aligned and recognised, with insightface or with onnxruntime alone."""

from .types import Face

__all__ = ["Face"]
