"""ArcFace, insightface's face recogniser, without insightface (reference: its model_zoo/arcface_onnx.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CROP = 112


def embed(session: InferenceSession, crop: np.ndarray) -> np.ndarray:
    """The (D_id,) vector of an aligned face, (112, 112, 3) uint8 RGB; its length is not 1 yet."""
    pixels = (crop.astype(np.float32) - 127.5) / 127.5
    return session.run(None, {session.get_inputs()[0].name: pixels.transpose(2, 0, 1)[None]})[0][0]
