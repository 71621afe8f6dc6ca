"""Checkpoints on disk: our own single safetensors file, and the released folder of three pickles."""

from .own import load_checkpoint, save_checkpoint
from .released import RELEASED_FILES, is_released

__all__ = ["RELEASED_FILES", "is_released", "load_checkpoint", "save_checkpoint"]
